"""Hostile vocabulary files are refused with what and where, within a gigabyte of memory, and nothing in them is run."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import IS_LONG
from nanofast.tokenizer import Tokenizer

GIGABYTE = 1 << 30
NUM_BLOCKS = 250 if IS_LONG else 40
"""Megabytes of a large file: as many as are read at all, or as pass every limit."""


class RunsWhenRead:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("it-was-run"),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_by_name_and_not_run(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tokenizer.pkl"
    file.write_bytes(pickle.dumps(RunsWhenRead(), protocol))
    with pytest.raises(ValueError, match=r"it is a pickle, which can run any code.*Tokenizer\.from_tiktoken"):
        Tokenizer.from_file(file)
    assert not Path("it-was-run").exists()


def _alphabet() -> dict[str, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {chr(point): index for index, point in enumerate([*printable, *range(256, 324)])}


def _file(**parts: object) -> bytes:
    model = {"type": "BPE", "vocab": _alphabet(), "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    return json.dumps({"added_tokens": [], "pre_tokenizer": byte_level, "model": model, **parts}).encode()


HOSTILE = {
    "a gigabyte in one line": lambda file: _sparse(file, b"A"),
    "a gigabyte of json": lambda file: _sparse(file, b'{"a": "'),
    "as many tokens as fit": lambda file: _repeated(file, b'{"model": {"type": "BPE", "vocab": {', b'"a":0,'),
    "as many merges as fit": lambda file: _repeated(file, b'{"model": {"type": "BPE", "merges": [', b'"a b",'),
    "as many added tokens as fit": lambda file: _repeated(file, b'{"added_tokens": [', b'{"id":1,"content":"a"},'),
    "a tree as large as fits": lambda file: _repeated(
        file, b'{"normalizer": [', b"0,", b'0], "model": {"vocab": {}, "merges": []}}'
    ),
    "an unknown part as large as fits": lambda file: _repeated(file, b'{"other": [', b"[],"),
    "own tokens as many as fit": lambda file: _repeated(
        file, b'{"format":"nanofast-tokenizer","version":1,"name":"x","tokens":[', b'[0,""],'
    ),
    "own merges as many as fit": lambda file: _repeated(
        file, b'{"format":"nanofast-tokenizer","version":1,"name":"x","merges":{"list":[', b"[0,0],"
    ),
    "a million added tokens": lambda file: file.write_bytes(
        _file(added_tokens=[{"id": 300 + index, "content": f"<{index}>"} for index in range(1_000_000)])
    ),
    "nested 10,000 deep": lambda file: file.write_bytes(
        _file(normalizer=None).replace(b'"normalizer": null', b'"normalizer": ' + b"[" * 10_000 + b"]" * 10_000)
    ),
    "tokens too long to cut": lambda file: file.write_bytes(
        b"".join(b"%s %d\n" % (b"QUJD" * 1000 + b"%04d" % rank, rank) for rank in range(1000))
    ),
}


def _sparse(file: Path, head: bytes) -> None:
    with file.open("wb") as out:
        out.write(head)
        out.truncate(GIGABYTE)


def _repeated(file: Path, head: bytes, piece: bytes, tail: bytes = b"") -> None:
    with file.open("wb") as out:
        out.write(head)
        block = piece * ((1 << 20) // len(piece))
        for _ in range(NUM_BLOCKS):
            out.write(block)
        out.write(tail)


# Loads the file named by the first argument with a gigabyte of memory beyond what Python itself has.
LIMITED = """
import resource, sys
from nanofast.tokenizer import Tokenizer
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30),) * 2)
try:
    Tokenizer.from_file(sys.argv[1], pattern=sys.argv[2] if len(sys.argv) > 2 else None)
except ValueError as error:
    print(error)
else:
    sys.exit("it was taken")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_within_a_gigabyte(name: str, tmp_path: Path) -> None:
    file = tmp_path / ("bad.tiktoken" if name in ("a gigabyte in one line", "tokens too long to cut") else "bad.json")
    HOSTILE[name](file)
    words = [sys.executable, "-W", "error", "-c", LIMITED, str(file)]
    pattern = [r"\S+|\s+"] if file.suffix == ".tiktoken" else []
    done = subprocess.run([*words, *pattern], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    assert len(done.stdout) < 1000
    file.unlink()


def test_a_vocabulary_that_contradicts_itself_says_where(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    vocab = _alphabet()
    for change, message in [
        ({"vocab": {**vocab, "ab": 3}}, "id 3 is both"),
        ({"vocab": {**vocab, "ab": 300}}, "no token has id 256"),
        ({"vocab": {**vocab, "ab": 1 << 20}}, "id 1048576 of token `ab` is too large"),
        ({"vocab": {**vocab, "ab": -1}}, "invalid value: integer `-1`.* line 1 column"),
        ({"vocab": {key: value for key, value in vocab.items() if key != "a"}}, "no token for the single byte 0x61"),
        ({"merges": ["a zz"]}, "merge 0 names `zz`, which is no token"),
        ({"merges": ["a b"]}, "merge 0 names `ab`, which is no token"),
        ({"merges": ["a"]}, 'merge "a" is no pair at line 1 column'),
    ]:
        model = {"type": "BPE", "vocab": vocab, "merges": [], **change}
        file.write_bytes(_file(model=model))
        with pytest.raises(ValueError, match=message):
            Tokenizer.from_file(file)


def test_a_broken_expression_says_which(tmp_path: Path) -> None:
    file = tmp_path / "some.tiktoken"
    file.write_bytes(b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)))
    for pattern in ("(", "a{1000000}{1000000}", "(" * 10_000, "\\p{Nonsense}", "(?:a{1000}){1000}{1000}"):
        with pytest.raises(ValueError, match="split pattern"):
            Tokenizer.from_file(file, pattern=pattern)
    assert Tokenizer.from_file(file, pattern=r"\S+|\s+").vocab_size == 256
