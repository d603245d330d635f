"""`python -m nanofast.data train-tokenizer PATHS --vocab-size N --out FILE`: a vocabulary from text files.

    python -m nanofast.data train-tokenizer ~/shards --vocab-size 32768 --out tokenizer.json
    python -m nanofast.data train-tokenizer a.jsonl b.parquet --vocab-size 4096 --max-mb 500 --out mine.tiktoken --json

Says how many bytes each token of it has, beside GPT-2's and GPT-4's vocabularies on the same text: what it was trained
on, or what `--compare-on` names, which is the fairer text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nanofast.command import local_path
from nanofast.data.amounts import positive_number, whole_number
from nanofast.data.texts import read_texts
from nanofast.tokenizer import GPT4_PATTERN, Tokenizer

if TYPE_CHECKING:
    from nanofast.vocabulary_training import Progress

OTHERS = {"GPT-2": "r50k_base", "GPT-4": "cl100k_base"}
PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal


@dataclass(frozen=True)
class Trained:
    """What was trained. Bytes per token are of `compared_bytes` of text."""

    path: str
    vocab_size: int
    special_tokens: dict[str, int]
    fingerprint: str
    text_bytes: int
    seconds: float
    compared_bytes: int
    bytes_per_token: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "paths", nargs="+", help="parquet, .jsonl, .csv, .txt, also .gz and .zst: files, folders, globs"
    )
    parser.add_argument(
        "--vocab-size", type=whole_number, required=True, metavar="N", help="bytes and special tokens included"
    )
    parser.add_argument("--out", type=local_path, required=True, metavar="FILE", help="where the vocabulary goes")
    parser.add_argument(
        "--format",
        choices=["huggingface", "nanofast", "tiktoken"],
        help="its format (tiktoken for a name that ends in .tiktoken, else huggingface: a tokenizer.json)",
    )
    parser.add_argument("--pattern", default=GPT4_PATTERN, metavar="REGEX", help="the split pattern (GPT-4's)")
    parser.add_argument(
        "--special-token",
        action="append",
        metavar="TEXT",
        help="a special token; give it once for each, they get the last ids in this order (<|bos|>)",
    )
    parser.add_argument("--text-column", default="text", metavar="NAME", help="where a row or line has its text (text)")
    parser.add_argument("--max-mb", type=positive_number, metavar="MB", help="text to train on at most (all of it)")
    parser.add_argument("--num-threads", type=whole_number, metavar="N", help="threads that count (one a core)")
    parser.add_argument(
        "--memory-limit-mb",
        type=positive_number,
        default=4096.0,
        metavar="MB",
        help="for the distinct pretokens (4096)",
    )
    parser.add_argument("--compare-on", metavar="PATH", help="text for the bytes per token (what it was trained on)")
    parser.add_argument("--compare-mb", type=positive_number, default=16.0, metavar="MB", help="how much of it (16)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to stderr")


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    if not arguments.out.parent.is_dir():
        raise FileNotFoundError(f"no folder `{arguments.out.parent}` to put `{arguments.out.name}` in; make it first")
    started = time.monotonic()
    with _reported() as progress:
        counted = [0]

        def tell(what: Literal["counting", "merging"], done: int, total: int | None) -> None:
            counted[0] = done if what == "counting" else counted[0]
            progress(what, done, total)

        tokenizer = Tokenizer.train(
            [Path(path) for path in arguments.paths],
            arguments.vocab_size,
            arguments.pattern,
            arguments.special_token or ["<|bos|>"],
            text_column=arguments.text_column,
            max_bytes=None if arguments.max_mb is None else int(arguments.max_mb * 1e6),
            num_threads=arguments.num_threads,
            memory_limit_bytes=int(arguments.memory_limit_mb * 1e6),
            progress=tell,
        )
    seconds = time.monotonic() - started
    is_tiktoken = arguments.out.suffix == ".tiktoken"
    tokenizer.save(arguments.out, format=arguments.format or ("tiktoken" if is_tiktoken else "huggingface"))
    compared = list(_up_to(arguments.compare_on or arguments.paths, arguments.text_column, arguments.compare_mb * 1e6))
    trained = Trained(
        path=str(arguments.out),
        vocab_size=tokenizer.vocab_size,
        special_tokens=tokenizer.special_tokens,
        fingerprint=tokenizer.fingerprint,
        text_bytes=counted[0],
        seconds=round(seconds, 3),
        compared_bytes=sum(map(len, compared)),
        bytes_per_token={
            "this": bytes_per_token(tokenizer, compared),
            **{model: bytes_per_token(Tokenizer.from_name(name), compared) for model, name in OTHERS.items()},
        },
    )
    print(json.dumps(asdict(trained), indent=2) if arguments.json else described(trained))
    return 0


def bytes_per_token(tokenizer: Tokenizer, texts: list[bytes]) -> float:
    """How many bytes of text a token stands for, 0 where there is none."""
    num_tokens = sum(tokenizer.count_tokens(text, errors="replace") for text in texts)
    return sum(map(len, texts)) / num_tokens if num_tokens else 0.0


def described(trained: Trained) -> str:
    """The result as a reader sees it."""
    others = [f"{model} ({name})" for model, name in OTHERS.items()]
    names = [f"{trained.path}, {trained.vocab_size:,} tokens", *others]
    figures = zip(names, trained.bytes_per_token.values(), strict=True)
    return "\n".join(
        [
            f"{trained.path}: {trained.vocab_size:,} tokens from {trained.text_bytes / 1e6:,.1f} MB of text "
            f"in {trained.seconds:.1f} s; fingerprint {trained.fingerprint[:12]}",
            f"bytes per token on {trained.compared_bytes / 1e6:,.1f} MB:",
            *(f"  {figure:.3f}  {name}" for name, figure in figures),
        ]
    )


def _up_to(paths: str | list[str], text_column: str, max_bytes: float) -> Iterator[bytes]:
    num_bytes = 0
    for batch in read_texts(paths, text_column=text_column):
        for text in batch:
            yield text
            num_bytes += len(text)
            if num_bytes >= max_bytes:
                return


@contextmanager
def _reported() -> Iterator[Progress]:
    """Progress on stderr: a live line on a terminal, a plain one now and then anywhere else."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)
    last = [time.monotonic()]

    def say(what: Literal["counting", "merging"], done: int, total: int | None) -> None:
        amount = f"{done / 1e6:,.0f} MB of text" if what == "counting" else f"{done:,} of {total:,} merges"
        if status is not None:
            status.update(f"{what}: {amount}")
        elif time.monotonic() - last[0] >= PLAIN_SECONDS:
            console.print(f"{what}: {amount}")
            last[0] = time.monotonic()

    status = console.status("reading") if console.is_terminal else None
    if status is None:
        yield say
        return
    with status:
        yield say
