"""Conversations → batches, one contender in one process: `python chat_worker.py CONTENDER PATH BATCH_SIZE PASSES`.

    nanofast one_per_row | nanofast best_fit | plain

Prints JSON: the digest of all batches of the first pass, or the conversations a second of each pass, by the clock and
of processor time; the first is the cold one, and begins with opening the data. `plain` is written as nanochat describes
its own: each thing said is encoded by tiktoken, lists of ids and masks grow, and a batch is padded to its longest
conversation.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

SEQUENCE_LENGTH = 4095  # longer than any conversation of the corpus
NUM_THREADS = 2
PARTS = ("user_start", "user_end", "assistant_start", "assistant_end", "python_start", "python_end")
SPECIALS = ("bos", *PARTS, "output_start", "output_end")

Batch = tuple[Any, Any]
Pass = tuple[Iterator[Batch], Callable[[], int]]  # its batches; how many conversations they took


def render(messages: list[dict[str, str]], encoding: Any, special: dict[str, int]) -> tuple[list[int], list[int]]:
    """Ids and mask of one conversation."""
    if messages[0]["role"] == "system":
        first = {"role": "user", "content": messages[0]["content"] + "\n\n" + messages[1]["content"]}
        messages = [first, *messages[2:]]
    ids, mask = [special["bos"]], [0]
    for index, message in enumerate(messages):
        role = "user" if index % 2 == 0 else "assistant"
        assert message["role"] == role
        said = encoding.encode_ordinary(message["content"])
        learned = int(role == "assistant")
        ids += [special[f"{role}_start"], *said, special[f"{role}_end"]]
        mask += [0, *[learned] * len(said), learned]
    return ids, mask


def collate(rendered: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Inputs and targets, as wide as the longest conversation less one."""
    import torch

    width = max(len(ids) for ids, _ in rendered) - 1
    inputs = torch.full((len(rendered), width), pad, dtype=torch.long)
    targets = torch.full((len(rendered), width), -1, dtype=torch.long)
    for row, (ids, mask) in enumerate(rendered):
        tokens = torch.tensor(ids, dtype=torch.long)
        inputs[row, : len(ids) - 1] = tokens[:-1]
        learned = tokens[1:].clone()
        learned[torch.tensor(mask[1:], dtype=torch.long) == 0] = -1
        targets[row, : len(ids) - 1] = learned
    return inputs, targets


def plain(path: Path, batch_size: int) -> Iterator[Pass]:
    """Passes of the plain loop; the data set lies in memory as Python objects."""
    import pyarrow.parquet as pq
    import tiktoken

    encoding = _r50k(tiktoken)
    special = {name: encoding.n_vocab + index for index, name in enumerate(SPECIALS)}
    conversations = pq.read_table(path, columns=["messages"])["messages"].to_pylist()
    starts = range(0, len(conversations) - batch_size + 1, batch_size)

    def one_pass() -> Iterator[Batch]:
        for start in starts:
            batch = [render(messages, encoding, special) for messages in conversations[start : start + batch_size]]
            yield collate(batch, special["assistant_end"])

    while True:
        yield one_pass(), lambda: len(starts) * batch_size


def _r50k(tiktoken: Any) -> Any:
    """tiktoken's r50k with the ranks that nanofast bundles, so that nothing is fetched."""
    import nanofast

    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    ranks = {tokenizer.decode_bytes([token]): token for token in range(50256)}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    return tiktoken.Encoding("r50k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def ours(path: Path, batch_size: int, packing: str) -> Iterator[Pass]:
    """Passes of ChatLoader; one loader goes on from pass to pass, as in training."""
    import torch  # noqa: F401  # tensors are what both give; imported before the clock starts

    import nanofast

    template = nanofast.ChatTemplate.from_name("nanochat")
    tokenizer = nanofast.Tokenizer.from_name("r50k_base").with_special_tokens(template.special_tokens)
    options: dict[str, Any] = {"lanes": 1, "unit_documents": 0, "num_threads": NUM_THREADS, "num_slots": 8}
    loader = nanofast.ChatLoader(path, tokenizer, batch_size, SEQUENCE_LENGTH, packing=packing, **options)

    def documents() -> int:
        return int(loader.metrics()["ledger"]["documents"])

    num_rows = sum(_row_counts(path))
    num_batches = num_rows // batch_size if packing == "one_per_row" else None

    def one_pass(before: int) -> Iterator[Batch]:
        nonlocal num_batches
        given = 0
        while documents() < before + num_rows if num_batches is None else given < num_batches:
            yield next(loader)
            given += 1
        num_batches = given  # asking after each batch would take time from the later passes

    while True:
        before = documents()
        yield one_pass(before), lambda before=before: documents() - before  # type: ignore[misc]


def _row_counts(path: Path) -> list[int]:
    from nanofast import _nanofast

    footer = json.loads(_nanofast.read_footer(str(_nanofast.find_shards(str(path))[0])))
    return [group["num_rows"] for group in footer["row_groups"]]


def measured(passes: Iterator[Pass], count: int) -> dict[str, list[float]]:
    """Conversations a second of each of `count` passes, by the clock and of processor time on all threads."""
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    rates: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(count):
        starts = {name: now() for name, now in clocks.items()}
        batches, num_conversations = next(passes)
        for _ in batches:
            pass
        seconds = {name: now() - starts[name] for name, now in clocks.items()}
        for name in clocks:
            rates[name].append(num_conversations() / seconds[name])
    return rates


def digest(batches: Iterable[Batch]) -> str:
    """Of every value of a pass that a loss can depend on.

    A conversation that ends with the user's turn ends with a token that nanochat's loop pads over, and that the stream
    keeps as an input; no learned target comes behind it.
    """
    found = hashlib.sha256()
    for inputs, targets in batches:
        learned_behind = targets.ne(-1).flip(1).cummax(1).values.flip(1)
        for tensor in (inputs.long() * learned_behind, targets):
            found.update(str(tuple(tensor.shape)).encode())
            found.update(tensor.long().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    contender, path, batch_size, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_THREADS])
    make = {
        "plain": lambda: plain(path, batch_size),
        "nanofast one_per_row": lambda: ours(path, batch_size, "one_per_row"),
        "nanofast best_fit": lambda: ours(path, batch_size, "best_fit"),
    }[contender]
    passes = make()
    report = {"digest": digest(next(passes)[0])} if count == 0 else {"rates": measured(passes, count)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
