"""Training gives the merges of Hugging Face's trainer, from texts and files, whatever the threads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanofast._nanofast import ParquetWriter
from nanofast.data.inputs import find_inputs
from nanofast.data.sample import SPECIAL_TOKENS, split_shards
from nanofast.data.stdlib import documents
from nanofast.data.texts import read_texts
from nanofast.tokenizer import GPT4_PATTERN, Tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = [f"The {word} sat on the {word}'s mat, {count} times.\n" for count, word in enumerate(["cat", "rat"] * 50)]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
NANOCHAT = GPT4_PATTERN.replace("{1,3}", "{1,2}")


def hugging_face(texts: Sequence[str], vocab_size: int, pattern: str) -> Any:
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return trained


def merges_of(tokenizer: Tokenizer, folder: Path) -> list[list[str]]:
    tokenizer.save(folder / "written.json", format="huggingface")
    merges: list[list[str]] = json.loads((folder / "written.json").read_bytes())["model"]["merges"]
    return merges


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """The sample corpus, thinned: both trainers take a second for it."""
    *train, _ = split_shards(documents())
    return [text for shard in train for text in shard][::2]


@pytest.mark.parametrize("pattern", [GPT4_PATTERN, GPT2, NANOCHAT, r"\w+|\W+"])
def test_merges_are_those_of_hugging_face(corpus: list[str], pattern: str, tmp_path: Path) -> None:
    texts = corpus if pattern == GPT4_PATTERN else corpus[::8]
    peer = hugging_face(texts, 2048, pattern)
    peer.save(str(tmp_path / "peer.json"))
    own = Tokenizer.train(texts, 2048 + 1, pattern)
    assert merges_of(own, tmp_path) == json.loads((tmp_path / "peer.json").read_bytes())["model"]["merges"]
    theirs = Tokenizer.from_file(tmp_path / "peer.json")
    values, _ = own.encode_batch(corpus[1::40])
    assert np.array_equal(values, theirs.encode_batch(corpus[1::40])[0])
    assert values.tolist() == [token for text in corpus[1::40] for token in peer.encode(text).ids]


def test_ties_go_to_the_smaller_pair(tmp_path: Path) -> None:
    # Each pair occurs once; ids of bytes follow their characters: `!` 0 … `a` 64 …, a space is U+0120.
    assert merges_of(Tokenizer.train(["ba dc fe"], 257 + 2, r"\S+|\s+"), tmp_path) == [["b", "a"], ["d", "c"]]
    assert merges_of(Tokenizer.train(["x a!a"], 257 + 1, r"x|.+"), tmp_path) == [["!", "a"]]


def test_what_is_trained_has_what_was_asked_for() -> None:
    tokenizer = Tokenizer.train(TEXTS, 300, special_tokens=["<|bos|>", "<|end|>"])
    assert tokenizer.vocab_size == 300
    assert tokenizer.special_tokens == {"<|bos|>": 298, "<|end|>": 299}
    assert tokenizer.bos_id == 298
    ids = tokenizer.encode(TEXTS[3])
    assert len(ids) < len(TEXTS[3])
    assert tokenizer.decode(ids) == TEXTS[3]


def test_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Tokenizer.train(TEXTS, 290).fingerprint
    monkeypatch.setattr("nanofast.data.texts.BATCH_BYTES", 50)
    for num_threads in (1, 2, 7):
        assert Tokenizer.train(iter(TEXTS), 290, num_threads=num_threads).fingerprint == expected
    assert Tokenizer.train((text.encode() for text in TEXTS), 290).fingerprint == expected
    assert Tokenizer.train(TEXTS[:3], 290).fingerprint != expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts as a shard of several row groups, JSON lines, and a text file, in the order of their names."""
    place = tmp_path_factory.mktemp("texts")
    writer = ParquetWriter(place / "a.parquet", row_group_documents=7)
    writer.write(TEXTS[:40])
    writer.close()
    lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(TEXTS[40:-1])]
    (place / "b.jsonl").write_text("\n".join(lines) + "\n\n", "utf-8")
    (place / "c.txt").write_text(TEXTS[-1], "utf-8")
    (place / "README.md").write_text("not a text of the corpus")
    return place


def test_files_give_what_their_texts_give(folder: Path) -> None:
    expected = Tokenizer.train(TEXTS, 290).fingerprint
    assert [text.decode() for batch in read_texts(folder) for text in batch] == TEXTS
    names = ["a.parquet", "b.jsonl", "c.txt"]
    assert [Path(source.path).name for source in find_inputs([str(folder)])] == names
    for paths in (folder, str(folder), f"{folder}/*.[pjt]*", [folder / name for name in names]):
        assert Tokenizer.train(paths, 290).fingerprint == expected


def test_no_more_text_is_read_than_asked_for() -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS
        raise AssertionError("the text that reaches max_bytes is the last one")

    three = sum(len(text) for text in TEXTS[:3])
    told: list[tuple[str, int, int | None]] = []
    tokenizer = Tokenizer.train(TEXTS, 290, max_bytes=three, progress=lambda *step: told.append(step))
    assert tokenizer.fingerprint == Tokenizer.train(TEXTS[:3], 290).fingerprint
    assert tokenizer.fingerprint == Tokenizer.train(TEXTS, 290, max_bytes=three - 1).fingerprint
    assert told[0] == ("counting", three, three)
    assert told[-1][0] == "merging"
    with pytest.raises(AssertionError):
        Tokenizer.train(texts(), 290)


@pytest.mark.parametrize(
    ("texts", "settings", "error", "message"),
    [
        (TEXTS, {"vocab_size": 256}, ValueError, "vocab_size = 256: at least 257"),
        (TEXTS, {"vocab_size": 1 << 21}, ValueError, "at most 1048575"),
        (TEXTS, {"pattern": "("}, ValueError, r"bad split pattern `\(`"),
        (TEXTS, {"memory_limit_bytes": 1000}, MemoryError, "distinct pretokens .* more than the limit"),
        (TEXTS, {"max_bytes": 0}, ValueError, "max_bytes = 0: at least 1"),
        (TEXTS, {"num_threads": 0}, ValueError, "num_threads = 0: at least 1"),
        (TEXTS, {"special_tokens": ["<x>", "<x>"]}, ValueError, "special token `<x>` has two ids"),
        ([], {}, ValueError, "no text to train on"),
        (["a", 1], {}, TypeError, r"texts\[1\] is of type int"),
        ([b"ab\xff"], {}, ValueError, "invalid UTF-8 .*byte 2"),
        ("nowhere/*.parquet", {}, FileNotFoundError, "no such file or folder: `nowhere"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(
    texts: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.train(texts, **{"vocab_size": 290, **settings})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"other": 1}', "line 2: no `text` .has: `other`."),
        ('{"text": 1}', "line 2: `text` is int; expected text"),
        ("[1]", "line 2: no `text` .has: list."),
        ("{", "line 2: no JSON .Expecting"),
        ("[" * 100_000, "line 2: no JSON"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"some.jsonl`, {message}"):
        Tokenizer.train(file, 290)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nanofast.data", "train-tokenizer", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_trains_compares_and_says_so(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    done = run(str(folder), "--vocab-size", "290", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["vocab_size"] == 290
    assert result["text_bytes"] == result["compared_bytes"] == sum(map(len, TEXTS))
    tokenizer = Tokenizer.from_file(out)
    expected = {
        name: result["text_bytes"] / len(peer.encode_batch(TEXTS)[0])
        for name, peer in {
            "this": tokenizer,
            "GPT-2": Tokenizer.from_name("r50k_base"),
            "GPT-4": Tokenizer.from_name("cl100k_base"),
        }.items()
    }
    assert result["bytes_per_token"] == pytest.approx(expected)
    assert tokenizers.Tokenizer.from_file(str(out)).encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).tolist()
    words = ["--special-token", "<|bos|>", "--special-token", "<|x|>", "--max-mb", "0.001", "--format", "tiktoken"]
    done = run(str(folder), "--vocab-size", "290", "--out", str(tmp_path / "r"), *words)
    assert done.returncode == 0, done.stderr
    assert "bytes per token" in done.stdout
    assert "GPT-4 (cl100k_base)" in done.stdout
    specials = {"<|bos|>": 288, "<|x|>": 289}
    ranked = Tokenizer.from_file(tmp_path / "r", pattern=GPT4_PATTERN, special_tokens=specials)
    assert ranked.vocab_size == 290


def test_a_mistake_on_the_command_line_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "x.json")]
    for words, message in [
        ([str(folder), "--vocab-size", "10", *out], "vocab_size = 10: at least 257"),
        ([str(tmp_path / "none"), "--vocab-size", "300", *out], "no such file or folder"),
        ([str(folder), "--vocab-size", "300", "--out", str(tmp_path / "no" / "x.json")], "no folder"),
        ([str(folder), "--vocab-size", "300", "--max-mb", "0", *out], "argument --max-mb: expected a number above 0"),
    ]:
        done = run(*words)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "example: python -m nanofast.data train-tokenizer" in run("--help").stdout


def test_the_sample_corpus_has_its_special_tokens(sample_corpus: tuple[Path, Path]) -> None:
    tokenizer = Tokenizer.from_file(sample_corpus[1])
    assert list(tokenizer.special_tokens) == list(SPECIAL_TOKENS)
    assert tokenizer.bos_id == tokenizer.vocab_size - len(SPECIAL_TOKENS)
