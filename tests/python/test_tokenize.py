"""Writing token files: the ids are the tokenizer's with BOS before each document, in every format, after any kill."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import nanofast
from commands import SMALL_FILES, data_command
from nanofast.data import token_writer, tokenize
from nanofast.data.tokenize import tokenize as write_tokens
from nanofast.runlog import read_log
from nanofast.train import run as train
from shards import random_text, write_shards

TOKENIZER = nanofast.Tokenizer.from_name("r50k_base")


def expected(documents: list[str]) -> list[int]:
    return [token for text in documents for token in (TOKENIZER.bos_id, *TOKENIZER.encode(text).tolist())]


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[list[str]]]:
    """Two shards, and the documents of each."""
    generator = random.Random(5)
    texts = [
        [[random_text(generator, 60) for _ in range(count)] for count in row_groups] for row_groups in ([20, 1], [30])
    ]
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shards(folder, texts)
    return folder, [[text for group in shard for text in group] for shard in texts]


def read(path: Path, format: str, dtype: str) -> list[int]:
    """As people read such files."""
    if format == "npy":
        array = np.load(path)
        assert array.dtype == np.dtype(dtype)
        return array.tolist()
    if format == "llm.c":
        header = np.fromfile(path, "<i4", 256)
        assert header[:2].tolist() == ([20240520, 1] if dtype == "uint16" else [20240801, 7])
        ids = np.fromfile(path, dtype, offset=1024)
        assert header[2] == len(ids)
        assert not header[3:].any()
        return ids.tolist()
    return np.fromfile(path, dtype).tolist()


def test_others_read_what_is_written(data, tmp_path):
    """With what nanoGPT, llm.c and modded-nanogpt do in their own loaders (`train.py`, `train_gpt2.py`)."""
    folder, documents = data
    ids = expected([text for shard in documents for text in shard])
    write_tokens(folder, tmp_path / "nanogpt.bin", TOKENIZER)
    assert np.memmap(tmp_path / "nanogpt.bin", dtype=np.uint16, mode="r").astype(np.int64).tolist() == ids
    path = tmp_path / "llmc.bin"
    write_tokens(folder, path, TOKENIZER, format="llm.c")
    with path.open("rb") as file:
        header = np.frombuffer(file.read(256 * 4), dtype=np.int32)
        assert (header[0], header[1]) == (20240520, 1)
        tokens = np.frombuffer(file.read(), dtype=np.uint16)
    assert len(tokens) == header[2]
    assert tokens.tolist() == ids
    header = torch.from_file(str(path), shared=False, size=256, dtype=torch.int32)
    tokens = torch.empty(int(header[2]), dtype=torch.uint16)
    with path.open("rb", buffering=0) as file:
        file.seek(256 * 4)
        assert file.readinto(tokens.numpy()) == 2 * len(tokens)
    assert tokens.tolist() == ids


@pytest.mark.parametrize(
    ("format", "suffix", "vocabulary", "dtype"),
    [
        ("flat", ".bin", "r50k_base", "uint16"),
        ("llm.c", ".bin", "r50k_base", "uint16"),
        ("npy", ".npy", "r50k_base", "uint16"),
        ("flat", ".bin", "cl100k_base", "uint32"),
        ("llm.c", ".bin", "cl100k_base", "uint32"),
    ],
)
def test_every_format_holds_the_ids_with_bos(data, tmp_path, format, suffix, vocabulary, dtype):
    folder, documents = data
    tokenizer = nanofast.Tokenizer.from_name(vocabulary)
    out = tmp_path / f"tokens{suffix}"
    written = write_tokens(folder, out, tokenizer, format=format)
    texts = [text for shard in documents for text in shard]
    ids = [token for text in texts for token in (tokenizer.bos_id, *tokenizer.encode(text).tolist())]
    assert read(out, format, dtype) == ids
    starts = np.load(f"{out}.starts.npy")
    assert starts.dtype == np.uint64
    assert starts.tolist() == [at for at, token in enumerate(ids) if token == tokenizer.bos_id]
    about = json.loads(Path(f"{out}.json").read_text())
    assert (about["num_tokens"], about["num_documents"], about["dtype"]) == (len(ids), len(texts), dtype)
    assert about["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    assert written.num_tokens == len(ids)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with nanofast.TokenFileLoader(out, 1, 50, lanes=1) as loader:  # dtype and vocabulary come from the description
        assert next(loader)[0].tolist() == [ids[:50]]


def test_a_folder_gets_a_file_for_each_shard(data, tmp_path):
    folder, documents = data
    out = tmp_path / "tokens"
    write_tokens(folder, out, TOKENIZER)
    for index, texts in enumerate(documents):
        assert read(out / f"shard_{index:05}.bin", "flat", "uint16") == expected(texts)
    assert write_tokens(folder, out, TOKENIZER).present == [str(out / f"shard_{index:05}.bin") for index in range(2)]
    with nanofast.TokenFileLoader(out, 2, 20, split="val", lanes=1) as loader:
        assert next(loader)[0][0].tolist() == expected(documents[1])[:20]
    assert nanofast.Tokenizer.from_file(out / "tokenizer.json").fingerprint == TOKENIZER.fingerprint


def test_a_split_is_written_alone(data, tmp_path):
    folder, documents = data
    write_tokens(folder, tmp_path / "val.bin", TOKENIZER, split="val")
    assert read(tmp_path / "val.bin", "flat", "uint16") == expected(documents[1])
    with pytest.raises(ValueError, match="name one file"):
        write_tokens(folder, tmp_path / "both", TOKENIZER, split="val")


@pytest.mark.parametrize("stop_after", [1, 4])
def test_goes_on_behind_the_last_piece(data, tmp_path, monkeypatch, stop_after):
    folder, documents = data
    monkeypatch.setattr(tokenize, "ROWS", 2)
    monkeypatch.setattr(tokenize, "ROW_TOKENS", 16)
    monkeypatch.setattr(tokenize, "PIECE_BATCHES", 2)
    out, count = tmp_path / "tokens.bin", 0
    write = token_writer.TokenWriter.write

    def write_or_die(writer, ids):
        nonlocal count
        count += 1
        if count > stop_after:
            writer._files[0].write(b"torn")
            raise KeyboardInterrupt
        write(writer, ids)

    monkeypatch.setattr(token_writer.TokenWriter, "write", write_or_die)
    while not out.exists():
        count = 0
        try:
            write_tokens(folder, out, TOKENIZER)
        except KeyboardInterrupt:
            stop_after += 2
            assert not out.exists()
    texts = [text for shard in documents for text in shard]
    assert read(out, "flat", "uint16") == expected(texts)
    assert np.load(f"{out}.starts.npy").tolist() == np.flatnonzero(np.array(expected(texts)) == 50256).tolist()


def test_other_data_begins_anew_and_other_files_are_not_replaced(data, tmp_path, monkeypatch):
    folder, documents = data
    out = tmp_path / "tokens.bin"

    def fail(writer, about):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(token_writer.TokenWriter, "finish", fail)
        with pytest.raises(KeyboardInterrupt):
            write_tokens(folder / "shard_00000.parquet", out, TOKENIZER)
    write_tokens(folder / "shard_00001.parquet", out, TOKENIZER)
    assert read(out, "flat", "uint16") == expected(documents[1])
    with pytest.raises(ValueError, match="was made from something else"):
        write_tokens(folder, out, TOKENIZER)
    (tmp_path / "foreign.bin").write_bytes(b"precious")
    with pytest.raises(ValueError, match="was made from something else"):
        write_tokens(folder, tmp_path / "foreign.bin", TOKENIZER)


def test_what_the_disk_gives_back_wrong_gets_no_name(data, tmp_path, monkeypatch):
    folder, _ = data
    out = tmp_path / "tokens.bin"
    monkeypatch.setattr(
        token_writer, "_forget_cached", lambda file: _flip(file.name) if file.name.endswith("bin.partial") else None
    )
    with pytest.raises(OSError, match="the disk gave back other ids"):
        write_tokens(folder, out, TOKENIZER)
    assert not out.exists()
    monkeypatch.undo()
    write_tokens(folder, out, TOKENIZER)
    assert read(out, "flat", "uint16") == expected([text for shard in data[1] for text in shard])


@pytest.mark.parametrize("damage", [lambda content: content[:-101], lambda content: b"\0\0" + content[2:]])
def test_a_part_that_changed_on_the_disk_is_begun_anew(data, tmp_path, monkeypatch, damage):
    folder, documents = data
    out = tmp_path / "tokens.bin"
    with monkeypatch.context() as patch:
        patch.setattr(token_writer.TokenWriter, "finish", lambda writer, about: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_tokens(folder, out, TOKENIZER)
    partial = tmp_path / ".tokens.bin.partial"
    partial.write_bytes(damage(partial.read_bytes()))
    write_tokens(folder, out, TOKENIZER)
    assert read(out, "flat", "uint16") == expected([text for shard in documents for text in shard])


def _flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[100] ^= 1
    Path(path).write_bytes(content)


def test_two_processes_do_not_write_one_file(data, tmp_path, monkeypatch):
    folder, _ = data
    out = tmp_path / "tokens.bin"
    write = token_writer.TokenWriter.write

    def write_twice(writer, ids):
        with pytest.raises(OSError, match="by another process"):
            write_tokens(folder, out, TOKENIZER)
        write(writer, ids)

    monkeypatch.setattr(token_writer.TokenWriter, "write", write_twice)
    write_tokens(folder, out, TOKENIZER)


def test_a_killed_process_leaves_nothing_that_looks_whole(data, tmp_path):
    folder, documents = data
    out = tmp_path / "tokens.bin"
    words = [sys.executable, "-m", "nanofast.data", "tokenize", str(folder), str(out), "--tokenizer", "r50k_base"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".tokens.bin.*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read(out, "flat", "uint16") == expected([text for shard in documents for text in shard])
    json.loads(done.stdout)


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    text = "some words of a document " * 40
    write_shards(tmp_path, [[[text] * 20]])
    words = ["tokenize", str(tmp_path), str(tmp_path / "tokens.bin"), "--tokenizer", "r50k_base"]
    done = subprocess.run([sys.executable, "-c", SMALL_FILES, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: cannot use `{tmp_path / 'tokens.bin'}`: File too large\n"
    assert not (tmp_path / "tokens.bin").exists()
    assert data_command(*words).returncode == 0
    assert read(tmp_path / "tokens.bin", "flat", "uint16") == expected([text] * 20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "a.bin", "--tokenizer", "r50k_base"], "nowhere"),
        (["{data}", "a.bin", "--tokenizer", "r50k"], "r50k_base"),
        (["{data}", "a.bin", "--tokenizer", "r50k_base", "--format", "npy"], "end it in .npy"),
        (["{data}", "a.bin", "--tokenizer", "r50k_base", "--text-column", "body"], "column `body` not in"),
        (["{data}", "a.bin"], "--tokenizer"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(data, tmp_path, words, message):
    words = [str(data[0]) if word == "{data}" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "nanofast.data", "tokenize", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr


def test_the_trainer_trains_from_a_token_file(sample_corpus, tmp_path, capsys):
    data, name = sample_corpus
    tokenizer = nanofast.Tokenizer.from_file(name)
    out = tmp_path / "tokens.bin"
    write_tokens(data, out, tokenizer)
    words = ["--data", str(out), "--run", str(tmp_path / "run"), "--num-iterations=2", "--no-report", "--shuffle"]
    words += ["--depth=1", "--n-embd=32", "--sequence-length=32", "--total-batch-size=256", "--device-batch-size=2"]
    words += ["--eval-tokens=512", "--sample-every=0", "--dtype=float32"]
    assert train(words) == 0
    entries = read_log(tmp_path / "run")
    run = next(entry for entry in entries if entry["kind"] == "run")
    assert run["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    assert next(entry["ledger"] for entry in entries if entry["kind"] == "ledger")["learned"] == 2 * 256
    assert any(entry["kind"] == "validation" for entry in entries)
    capsys.readouterr()
    assert train([*words, "--tokenizer", "r50k_base"]) == 2
    complaint = capsys.readouterr().err
    assert "was made with tokenizer" in complaint
    assert complaint.count("\n") == 1
