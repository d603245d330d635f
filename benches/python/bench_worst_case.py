"""How long do the texts take that others overflow or never finish on?

    pytest benches/python/bench_worst_case.py -s

1 MB of one letter, of spaces, of digits, of newlines, of random letters, of combining marks, beside tiktoken on 1 MB of
English; and 8 MB beside 1 MB. Ids must give the text back before anything is timed. Each text is encoded once, by an
encoder that has seen others only: what is measured is the text, not a cache. Figures are ms of the thread's CPU time,
medians of rounds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import nanofast
from corpus import SHARED
from results import Results, Table
from vocabularies import NAMES, tiktoken_encoding, write_vocabulary

BUNDLED = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")
MEGABYTE = 1_000_000


def worst(kind: str, num_bytes: int) -> str:
    """`num_bytes` of UTF-8 of a kind."""
    if kind == "random letters":
        return "".join(random.Random(num_bytes).choices("abcdefghijklmnopqrstuvwxyz", k=num_bytes))
    piece = {"one letter": "a", "spaces": " ", "digits": "7", "newlines": "\n", "combining marks": "\u0301"}[kind]
    return piece * (num_bytes // len(piece.encode()))


KINDS = ("one letter", "spaces", "digits", "newlines", "random letters", "combining marks")


def milliseconds(encode: Callable[[str], object], texts: list[str]) -> float:
    times = []
    for text in texts:
        start = time.thread_time()
        encode(text)
        times.append(1e3 * (time.thread_time() - start))
    return statistics.median(times)


def english(num_bytes: int) -> str:
    """English of the corpora beside the checkout, else the README over and over."""
    files = sorted((SHARED / "corpus" / "web_en").glob("*.parquet"))
    if not files:
        text = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
        return (text * (num_bytes // len(text) + 1))[:num_bytes]
    import pyarrow.parquet as parquet

    return "\n".join(parquet.read_table(files[0], columns=["text"])["text"].to_pylist())[:num_bytes]


def test_worst_cases_beside_english_under_tiktoken(
    smoke: bool, num_rounds: int, results: Results, tmp_path: Path
) -> None:
    size = 10_000 if smoke else MEGABYTE
    text = english(size)
    peers = {}
    for name in NAMES:
        write_vocabulary(name, tmp_path)
        peers[name] = milliseconds(tiktoken_encoding(name, tmp_path).encode_ordinary, [text] * num_rounds)
    rows: list[tuple[str | float, ...]] = []
    for name in BUNDLED:
        tokenizer = nanofast.Tokenizer.from_name(name)
        tokenizer.encode(text)
        for kind in KINDS:
            short, long = worst(kind, size), worst(kind, 8 * size)
            assert tokenizer.decode(nanofast.Tokenizer.from_name(name).encode(short)) == short
            # Another length each round, so that no round finds what the one before left in the caches.
            one = milliseconds(tokenizer.encode, [short[at:] for at in range(num_rounds)])
            eight = milliseconds(tokenizer.encode, [long[at:] for at in range(num_rounds)])
            reference = peers.get(name, min(peers.values()))
            rows.append((name, kind, one, eight, eight / one, one / reference))
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in peers.items())
    results.add(
        Table(
            "Catastrophic texts",
            ("vocabulary", "text", "1 MB, ms", "8 MB, ms", "8 MB ÷ 1 MB", "1 MB ÷ tiktoken on English"),
            rows,
            (f"ms of processor time, median of {num_rounds}; tiktoken on {size:,} bytes of English: {told}",),
        )
    )
