"""`python -m nanofast.data tokenize IN OUT`: parquet text to pre-tokenized files.

    python -m nanofast.data tokenize ~/shards tokens.bin --tokenizer r50k_base             one file, uint16, nanoGPT's
    python -m nanofast.data tokenize ~/shards ~/tokens --tokenizer r50k_base --format llm.c   a file a shard

BOS stands before each document. Beside each file are its description (`NAME.json`) and the index of its documents
(`NAME.starts.npy`: uint64, where each begins); the tokenizer lies beside them. The stream of ids is that of the loader
with packing `concat` on one lane, so all threads work on it, whatever the size of row groups, and its states are where
a run that was killed goes on. A file has its name only when all of it was read back.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nanofast.command import local_path
from nanofast.copies import IGNORE
from nanofast.data.amounts import whole_number
from nanofast.data.aside import naming
from nanofast.data.behind import Behind
from nanofast.data.inputs import require_shards
from nanofast.data.pace import Pace
from nanofast.data.token_writer import FORMATS, Kind, TokenWriter
from nanofast.loader import TokenLoader
from nanofast.remote import remote_json, require_local
from nanofast.token_files import SUFFIXES, TOKENIZER_SUFFIX, description_of

if TYPE_CHECKING:
    from nanofast.tokenizer import Tokenizer

# A batch is a million ids: large enough that what Python does for each does not count, small beside the caches' memory.
ROWS, ROW_TOKENS = 16, 1 << 16
# A piece is some seconds of work, which is what a kill costs; smaller ones wait for the disk more often.
PIECE_BATCHES = 64
# Batches that wait for the disk while the next ones are tokenized.
WAITING_BATCHES = 16


@dataclass
class Written:
    """What became of each file."""

    files: list[dict[str, Any]] = field(default_factory=list)
    present: list[str] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Ids in the files that were written."""
        return sum(int(file["num_tokens"]) for file in self.files)


def tokenize(
    data: str | Path,
    out: str | Path,
    tokenizer: Tokenizer,
    *,
    format: str | None = None,
    text_column: str = "text",
    split: str | None = None,
    bos_token: str | None = None,
    num_threads: int | None = None,
    quiet: bool = True,
) -> Written:
    """Write token files for `data` (a parquet file, folder, glob or URL).

    `out` is one file where it ends in .bin or .npy, else a folder that gets a file for each shard. Files that are there
    and were made from the same data in the same way stay.

    Raises:
        nanofast.Error: the data cannot be read. ValueError: `out` holds something else. OSError: it cannot be written.
    """
    from nanofast._nanofast import find_shards

    require_local("out", out)
    out = Path(out)
    is_file = out.suffix in SUFFIXES
    kind = Kind(_format(format, out), "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32")
    shards = [str(path) for path in find_shards(data, remote_json([str(data)], None))]
    if not is_file and split is not None:
        raise ValueError(f"split = {split}: a folder gets a file for each shard; name one file to write one split")
    folder = out.parent if is_file else out
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".npy" if kind.format == "npy" else ".bin"
    targets = [(out, shards)] if is_file else [(out / (Path(path).stem + suffix), [path]) for path in shards]
    written = Written()
    for final, sources in targets:
        loader = _loader(sources, tokenizer, text_column, split, bos_token, num_threads)
        with loader:
            found = _write(final, kind, loader, quiet=quiet)
        if found is None:
            written.present.append(str(final))
        else:
            written.files.append({"file": str(final), **{k: v for k, v in found.items() if k != "source"}})
    vocabulary = folder / (f"{out.name}{TOKENIZER_SUFFIX}" if is_file else TOKENIZER_SUFFIX[1:])
    with naming(vocabulary):
        tokenizer.save(vocabulary)
    return written


def _loader(
    shards: list[str],
    tokenizer: Tokenizer,
    text_column: str,
    split: str | None,
    bos_token: str | None,
    num_threads: int | None,
) -> TokenLoader:
    """All documents of the shards once, as one stream."""
    return TokenLoader(
        shards,
        tokenizer,
        ROWS,
        ROW_TOKENS,
        text_column=text_column,
        split=split,
        packing="concat",
        rank=0,
        world_size=1,
        lanes=1,
        epochs=1,
        bos_token=bos_token,
        num_threads=num_threads,
    )


def _write(final: Path, kind: Kind, loader: TokenLoader, *, quiet: bool) -> dict[str, Any] | None:
    """Write one file; its description, or None where it was there."""
    identity = loader.state_dict()["identity"]
    there = description_of(final)
    if final.exists():
        if there is not None and there["source"] == identity and there["format"] == kind.format:
            return None
        raise ValueError(f"`{final}` is there and was made from something else; remove it, or name another file")
    with (
        naming(final),
        TokenWriter(final, kind, identity["bos_id"], identity) as writer,
        Pace(final.name, None, quiet=quiet) as pace,
    ):
        if writer.state is not None:
            loader.load_state_dict({**writer.state, "identity": identity})
        with Behind(WAITING_BATCHES) as behind:
            for number, ids in enumerate(_ids(loader, is_first=writer.num_tokens == 0), 1):
                behind.call(writer.write, ids.astype(kind.dtype, order="C").ravel())  # the loader uses its own again
                if number % PIECE_BATCHES == 0:
                    behind.call(writer.end_piece, _position(loader))
                    pace.move(loader.metrics()["ledger"]["bytes"])
            behind.call(writer.end_piece, _position(loader))
        return writer.finish(
            {
                "vocab_size": loader.tokenizer.vocab_size,
                "tokenizer": {"name": loader.tokenizer.name, "fingerprint": loader.tokenizer.fingerprint},
                "text_bytes": loader.metrics()["ledger"]["bytes"],
            }
        )


def _ids(loader: TokenLoader, *, is_first: bool) -> Iterator[npt.NDArray[Any]]:
    """The stream behind what the loader has delivered: each token is a target once, but for the very first."""
    for inputs, targets in loader.numpy(copy=False):
        if is_first:
            yield inputs[0, :1]
            is_first = False
        # int64 are the targets of the last batch, whose rest is padding
        yield targets if targets.dtype == np.int32 else targets[targets != IGNORE]


def _position(loader: TokenLoader) -> dict[str, Any]:
    state = loader.state_dict()
    del state["identity"]  # which stands in the journal once
    return state


def _format(format: str | None, out: Path) -> str:
    if format is None:
        return "npy" if out.suffix == ".npy" else "flat"
    if format not in FORMATS:
        raise ValueError(f"format = `{format}`: expected one of {', '.join(FORMATS)}")
    if out.suffix in SUFFIXES and (format == "npy") != (out.suffix == ".npy"):
        raise ValueError(f"`{out}` would not be found as {format}; end it in {'.npy' if format == 'npy' else '.bin'}")
    return format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("data", help="a parquet file, a folder of them, a glob, or a URL")
    parser.add_argument("out", type=local_path, help="a file (.bin, .npy), or a folder that gets a file for each shard")
    parser.add_argument("--tokenizer", required=True, metavar="NAME_OR_FILE", help="a bundled vocabulary or a file")
    parser.add_argument(
        "--format", choices=FORMATS, help="how ids are framed: flat (nanoGPT), llm.c, npy (by the name of OUT)"
    )
    parser.add_argument("--text-column", default="text", metavar="NAME", help="the column that holds documents (text)")
    parser.add_argument("--split", choices=["train", "val"], help="all shards but the last, or the last (all)")
    parser.add_argument("--bos-token", metavar="TOKEN", help="what stands before each document (the tokenizer's own)")
    parser.add_argument("--num-threads", type=whole_number, metavar="N", help="native threads (the cores there are)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    from nanofast.data.inspect import named_tokenizer

    require_shards(arguments.data)
    written = tokenize(
        arguments.data,
        arguments.out,
        named_tokenizer(arguments.tokenizer),
        format=arguments.format,
        text_column=arguments.text_column,
        split=arguments.split,
        bos_token=arguments.bos_token,
        num_threads=arguments.num_threads,
        quiet=arguments.json,
    )
    if arguments.json:
        print(json.dumps(asdict(written), indent=2))
        return 0
    for file in written.files:
        print(
            f"{file['file']}: {file['num_tokens']:,} tokens of {file['num_documents']:,} documents, {file['format']}, "
            f"{file['dtype']}, {file['size_bytes'] / 1e6:,.1f} MB; read back and right"
        )
    for name in written.present:
        print(f"{name}: was there")
    return 0
