"""`python -m nanofast.data bench PATH`: how fast this machine feeds this data, and which model that suffices for.

    python -m nanofast.data bench ~/shards --tokenizer r50k_base
    python -m nanofast.data bench tokens.bin --gpu A100 --num-gpus 8

Each number of threads reads for some seconds, behind a start that does not count. A model of N parameters takes about
6 N FLOP for each token it learns (Kaplan et al. 2020), so a GPU that does P FLOP/s of its peak takes P / 6N tokens a
second: models from N = P / (6 × tokens a second) on are never kept waiting.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanofast.batch_loader import BatchLoader
from nanofast.data.amounts import numbers_of_threads, positive_number, whole_number
from nanofast.data.inputs import require_shards
from nanofast.loader import TokenLoader
from nanofast.token_files import TokenFileLoader, is_token_data

if TYPE_CHECKING:
    from nanofast.tokenizer import Tokenizer

FLOP_PER_PARAMETER_AND_TOKEN = 6


@dataclass(frozen=True)
class Rate:
    """What one number of threads gave."""

    num_threads: int
    tokens_per_second: float
    text_mb_per_second: float | None
    """None for token files."""
    bottleneck: str
    """The stage that took the most time of the threads."""
    stage_seconds: dict[str, float]
    enough_for_parameters: float
    """The smallest model that all GPUs together do not outrun."""


def bench(
    path: str | Path,
    tokenizer: Tokenizer | None,
    *,
    threads: list[int],
    seconds: float,
    peak_flops: float,
    text_column: str = "text",
    batch_size: int = 32,
    sequence_length: int = 2048,
    packing: str = "best_fit",
) -> list[Rate]:
    """Measure each number of threads. `peak_flops`: what all GPUs together do in training, in FLOP/s."""
    rates = []
    for count in threads:
        options: dict[str, Any] = {"rank": 0, "world_size": 1, "num_threads": count}
        if is_token_data(str(path)):
            loader: BatchLoader = TokenFileLoader(str(path), batch_size, sequence_length, "window", **options)
        elif tokenizer is None:
            raise ValueError("text needs a tokenizer; pass --tokenizer, such as r50k_base")
        else:
            options |= {"text_column": text_column, "packing": packing}
            loader = TokenLoader(str(path), tokenizer, batch_size, sequence_length, **options)
        with loader:
            rates.append(_measured(loader, count, seconds, peak_flops))
    return rates


def _measured(loader: BatchLoader, num_threads: int, seconds: float, peak_flops: float) -> Rate:
    batches = loader.numpy(copy=False)
    # Caches fill and threads start in the first fifth, and in the first batches at least.
    begun = time.monotonic()
    for number, _ in enumerate(batches):
        if number >= loader.num_slots and time.monotonic() - begun > seconds / 5:
            break
    before, start, count = loader.metrics(), time.monotonic(), 0
    for _ in batches:
        count += loader.batch_size * loader.sequence_length
        if time.monotonic() - start > seconds:
            break
    elapsed, after = time.monotonic() - start, loader.metrics()
    stages = {
        stage: after["stage_seconds"][stage] - spent
        for stage, spent in before["stage_seconds"].items()
        if stage not in ("idle", "ring_full", "copy")
    }
    num_bytes = after["bytes"] - before["bytes"]
    rate = count / elapsed
    return Rate(
        num_threads,
        rate,
        num_bytes / elapsed / 1e6 if num_bytes else None,
        max(stages, key=lambda stage: stages[stage]),
        {stage: round(spent, 3) for stage, spent in stages.items()},
        peak_flops / (FLOP_PER_PARAMETER_AND_TOKEN * rate),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("path", help="parquet or token files: a file, a folder, a glob; of parquet also a URL")
    parser.add_argument("--tokenizer", metavar="NAME_OR_FILE", help="for parquet: a bundled vocabulary or a file")
    parser.add_argument("--text-column", default="text", metavar="NAME", help="the column that holds documents (text)")
    parser.add_argument("--packing", default="best_fit", choices=["best_fit", "concat"], help="(best_fit)")
    parser.add_argument("--batch-size", type=whole_number, default=32, metavar="N", help="rows a batch (32)")
    parser.add_argument("--sequence-length", type=whole_number, default=2048, metavar="N", help="tokens a row (2048)")
    parser.add_argument(
        "--threads", type=whole_number, nargs="+", metavar="N", help="numbers of threads (1, 2, 4 … cores)"
    )
    parser.add_argument(
        "--seconds", type=positive_number, default=5.0, metavar="S", help="time for each number of threads (5)"
    )
    parser.add_argument("--gpu", default="H100", metavar="NAME", help="GPU to feed (H100)")
    parser.add_argument("--num-gpus", type=whole_number, default=1, metavar="N", help="how many of them (1)")
    parser.add_argument(
        "--mfu", type=positive_number, default=0.4, metavar="SHARE", help="share of the peak in training (0.4)"
    )
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    from nanofast.distributed import available_cores
    from nanofast.peak import BFLOAT16_PEAKS

    peaks = [peak for name, peak in BFLOAT16_PEAKS if name.lower() == arguments.gpu.lower()]
    if not peaks:
        raise ValueError(f"--gpu {arguments.gpu} is not known; one of: {', '.join(name for name, _ in BFLOAT16_PEAKS)}")
    require_shards(arguments.path)
    cores = available_cores()
    threads = arguments.threads or numbers_of_threads(cores)
    tokenizer = None
    if arguments.tokenizer is not None:
        from nanofast.data.inspect import named_tokenizer

        tokenizer = named_tokenizer(arguments.tokenizer)
    rates = bench(
        arguments.path,
        tokenizer,
        threads=threads,
        seconds=arguments.seconds,
        peak_flops=peaks[0] * arguments.mfu * arguments.num_gpus,
        text_column=arguments.text_column,
        batch_size=arguments.batch_size,
        sequence_length=arguments.sequence_length,
        packing=arguments.packing,
    )
    if arguments.json:
        print(json.dumps([asdict(rate) for rate in rates], indent=2))
        return 0
    gpus = f"{arguments.num_gpus} × {arguments.gpu}" if arguments.num_gpus > 1 else f"one {arguments.gpu}"
    print(f"{arguments.path}: batches of {arguments.batch_size} × {arguments.sequence_length}, {cores} cores")
    for rate in rates:
        text = f", {rate.text_mb_per_second:,.0f} MB/s of text" if rate.text_mb_per_second else ""
        print(
            f"  {rate.num_threads} threads  {rate.tokens_per_second / 1e6:,.1f} M tokens/s{text}; most time in "
            f"{rate.bottleneck}; enough for {gpus} at {arguments.mfu:.0%} of its peak and models of "
            f"{_parameters(rate.enough_for_parameters)} parameters or more"
        )
    return 0


def _parameters(count: float) -> str:
    return f"{count / 1e9:.2g} billion" if count >= 1e9 else f"{count / 1e6:.2g} million"
