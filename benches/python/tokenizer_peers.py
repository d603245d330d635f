"""One tokenizer in a process of its own: `python tokenizer_peers.py RUN` with the run as JSON; prints JSON.

The first pass of a process is cold: the tokenizer is loaded and has encoded one word. Ids go into memory that is there
before the first pass, where a tokenizer can be given any: nanofast's can; gigatoken's come in fresh arrays, those of
Hugging Face tokenizers in `Encoding` objects, tiktoken's in lists, tiktoken-rs' in vectors. Counting them is not timed,
but by tiktoken-rs, which is a program of its own (benches/rust/tiktoken.rs).
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from corpus import SHARED
from rounds import processor_seconds


@dataclass(frozen=True)
class Run:
    """What a process is asked to do."""

    peer: str
    vocabulary: str
    corpus: str
    num_threads: int
    num_bytes: int  # of text, at most
    num_passes: int
    folder: str  # of the vocabularies' files
    packages: str | None = None  # where the peer's package is, if not in this environment
    program: str | None = None  # of tiktoken-rs


def texts_of(corpus: str, num_bytes: int) -> list[str]:
    """The first documents of a corpus of `../shared/data`; `code`: sources of the standard library."""
    texts: list[str] = []
    for text in _sources() if corpus == "code" else _documents(corpus):
        num_bytes -= len(text.encode())
        if num_bytes < 0:
            break
        texts.append(text)
    return texts


def _documents(corpus: str) -> Iterator[str]:
    import pyarrow.parquet as parquet

    for path in sorted((SHARED / "corpus" / corpus).glob("*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(256, columns=["text"]):
            yield from batch["text"].to_pylist()


def _sources() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts:
            try:
                yield path.read_text("utf-8")
            except UnicodeDecodeError:
                continue


class Nanofast:
    def __init__(self, run: Run) -> None:
        import nanofast

        self.version = nanofast.__version__
        file = Path(run.folder) / f"{run.vocabulary}.published.json"
        make = nanofast.Tokenizer.from_file if file.exists() else nanofast.Tokenizer.from_name
        self.tokenizer = make(file if file.exists() else run.vocabulary)  # type: ignore[arg-type]
        self.num_threads = run.num_threads
        self.pool = ThreadPoolExecutor(run.num_threads)
        # Each thread comes to an encoder of its own while the others hold theirs.
        together = threading.Barrier(run.num_threads)
        list(self.pool.map(lambda _: (together.wait(), self.tokenizer.encode("a")), range(run.num_threads)))

    def prepare(self, texts: Sequence[str]) -> None:
        """Deal the texts to threads, and lay out the memory that ids go to."""
        ends = np.cumsum([len(text) for text in texts])
        cuts = np.searchsorted(ends, np.linspace(0, ends[-1], self.num_threads + 1)[1:-1])
        borders = [0, *map(int, cuts), len(texts)]
        self.parts = [texts[first:last] for first, last in pairwise(borders)]
        # A token has a byte at least.
        self.outs = [np.ones(sum(len(text.encode()) for text in part), np.uint32) for part in self.parts]

    def encode(self, texts: Sequence[str]) -> int:
        if len(self.parts) == 1:
            return self.encode_part(self.parts[0], self.outs[0])
        return sum(self.pool.map(self.encode_part, self.parts, self.outs))

    def encode_part(self, texts: Sequence[str], out: np.ndarray) -> int:
        return int(self.tokenizer.encode_batch_to(texts, out)[-1])

    def count(self, encoded: int) -> int:
        return encoded

    def processor_seconds(self) -> float:
        return time.process_time()


class Peer:
    """What the others share: nothing to prepare."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.file = str(Path(run.folder) / f"{run.vocabulary}.json")

    def prepare(self, texts: Sequence[str]) -> None:
        pass

    def processor_seconds(self) -> float:
        return time.process_time()


class Gigatoken(Peer):
    def __init__(self, run: Run) -> None:
        super().__init__(run)
        import gigatoken

        self.version = metadata.version("gigatoken")
        ranks = Path(self.file).with_suffix(".tiktoken")
        is_published = Path(run.folder, f"{run.vocabulary}.published.json").exists()
        # It knows the bundled vocabularies' patterns by the names of their files.
        from_tiktoken = gigatoken.Tokenizer.from_tiktoken
        self.tokenizer = gigatoken.Tokenizer(self.file) if is_published else from_tiktoken(ranks)

    def encode(self, texts: Sequence[str]) -> Any:
        return self.tokenizer.encode_batch(texts, parallel=self.run.num_threads > 1)

    def count(self, encoded: Any) -> int:
        return len(encoded.layout.content)


class HuggingFace(Peer):
    def __init__(self, run: Run) -> None:
        super().__init__(run)
        import tokenizers

        self.version = tokenizers.__version__
        self.tokenizer = tokenizers.Tokenizer.from_file(self.file)
        # Before 1.0, `encode_batch` computes offsets as well, unless asked by another name.
        self.encode_batch = getattr(self.tokenizer, "encode_batch_fast", self.tokenizer.encode_batch)

    def encode(self, texts: Sequence[str]) -> Any:
        return self.encode_batch(texts, add_special_tokens=False)

    def count(self, encoded: Any) -> int:
        return sum(len(encoding.ids) for encoding in encoded)


class Tiktoken(Peer):
    def __init__(self, run: Run) -> None:
        super().__init__(run)
        import tiktoken

        self.version = tiktoken.__version__
        file = Path(self.file)
        pattern = json.loads(file.with_suffix(".pattern").read_text())
        lines = (line.split() for line in file.with_suffix(".tiktoken").read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        self.encoding = tiktoken.Encoding(run.vocabulary, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(self, texts: Sequence[str]) -> Any:
        return self.encoding.encode_ordinary_batch(texts, num_threads=self.run.num_threads)

    def count(self, encoded: Any) -> int:
        return sum(map(len, encoded))


class TiktokenRs(Peer):
    """Lines to a program and back; the program encodes."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        assert run.program is not None
        lock = (Path(__file__).parents[2] / "Cargo.lock").read_text("utf-8")
        self.version = re.findall(r'name = "tiktoken-rs"\nversion = "(.+)"', lock)[0]
        words = [run.program, run.vocabulary, str(run.num_threads)]
        self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.answer() != "ready":
            raise SystemExit(f"tiktoken-rs has no {run.vocabulary}")

    def answer(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def ask(self, line: str) -> int:
        print(line, file=self.child.stdin, flush=True)
        return int(self.answer())

    def prepare(self, texts: Sequence[str]) -> None:
        file = Path(self.file).with_suffix(".texts")
        with file.open("wb") as out:
            for text in texts:
                encoded = text.encode()
                out.write(len(encoded).to_bytes(4, "little") + encoded)
        assert self.ask(str(file)) == len(texts)

    def encode(self, texts: Sequence[str]) -> Any:
        return self.ask("")

    def count(self, encoded: Any) -> int:
        return int(encoded)

    def processor_seconds(self) -> float:
        return processor_seconds(self.child.pid)


# With the package that each imports.
PEERS: dict[str, tuple[Any, str | None]] = {
    "nanofast": (Nanofast, "nanofast"),
    "gigatoken": (Gigatoken, "gigatoken"),
    "tokenizers": (HuggingFace, "tokenizers"),
    "tokenizers (pre)": (HuggingFace, "tokenizers"),
    "tiktoken": (Tiktoken, "tiktoken"),
    "tiktoken-rs": (TiktokenRs, None),
}


def measure(run: Run) -> dict[str, Any]:
    """Seconds to load, and MB of text a second in each pass, by the clock and by processor time."""
    texts = texts_of(run.corpus, run.num_bytes)
    num_bytes = sum(len(text.encode()) for text in texts)
    make, package = PEERS[run.peer]
    if package is not None:
        importlib.import_module(package)
    start = time.perf_counter()
    peer = make(run)
    peer.prepare(["a"] * run.num_threads)
    peer.encode(["a"] * run.num_threads)
    load_seconds = time.perf_counter() - start
    peer.prepare(texts)
    report: dict[str, Any] = {"peer": run.peer, "version": peer.version, "num_threads": run.num_threads}
    report.update(load_seconds=load_seconds, text_bytes=num_bytes, speeds=[], cpu_speeds=[])
    for _ in range(run.num_passes):
        start, cpu = time.perf_counter(), peer.processor_seconds()
        encoded = peer.encode(texts)
        seconds, cpu = time.perf_counter() - start, peer.processor_seconds() - cpu
        report["speeds"].append(num_bytes / 1e6 / seconds)
        report["cpu_speeds"].append(num_bytes / 1e6 / cpu)
        report["num_tokens"] = peer.count(encoded)
        del encoded
    return report


if __name__ == "__main__":
    asked = Run(**json.loads(sys.argv[1]))
    if asked.packages:
        sys.path.insert(0, asked.packages)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.num_threads])
    print(json.dumps(measure(asked)))
