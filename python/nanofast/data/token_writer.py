"""A token file on its way: written in pieces, each read back from the disk before it counts, resumed behind the last.

    .tokens.bin.partial           header (filled in at the end), ids
    .tokens.bin.starts.partial    header, where documents begin
    .tokens.bin.pieces            a line a piece: ids, documents, SHA-256, where the source stands
    tokens.bin.starts.npy, tokens.bin.json, tokens.bin    appear in this order, when all is there

A kill at any moment costs the last piece: what is in no finished piece is cut off at the next start.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from nanofast.data.aside import flush
from nanofast.data.worklog import Worklog, open_without_following
from nanofast.token_files import ABOUT_SUFFIX, STARTS_SUFFIX

FORMATS = ("flat", "llm.c", "npy")
# llm.c's header: int32 magic number and version by dtype (GPT-2's and Llama 3's kind), number of ids, zeros.
LLM_C_BYTES = 256 * 4
LLM_C_KINDS = {"uint16": (20240520, 1), "uint32": (20240801, 7)}
NPY_BYTES = 128
READ_BYTES = 1 << 24
# Where a file stands before its first piece.
NOTHING: dict[str, Any] = {"num_tokens": 0, "num_documents": 0, "state": None}


@dataclass(frozen=True)
class Kind:
    """How ids are written."""

    format: str
    dtype: str

    @property
    def header_bytes(self) -> int:
        """Bytes in front of the ids."""
        return {"flat": 0, "llm.c": LLM_C_BYTES, "npy": NPY_BYTES}[self.format]

    def header(self, num_tokens: int) -> bytes:
        """What stands there."""
        if self.format == "npy":
            return npy_header(self.dtype, num_tokens)
        if self.format == "flat":
            return b""
        if num_tokens >= 1 << 31:
            raise ValueError(
                f"{num_tokens} tokens: the header of an llm.c file holds at most {2**31 - 1}; name a folder, for "
                "a file a shard, or use --format flat"
            )
        return np.array([*LLM_C_KINDS[self.dtype], num_tokens], np.int32).tobytes().ljust(LLM_C_BYTES, b"\0")


def npy_header(dtype: str, length: int) -> bytes:
    """numpy's header of an array of one dimension, of the same size whatever its length."""
    buffer = io.BytesIO()
    description = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(buffer, description)
    text = buffer.getvalue()[10:].rstrip()
    return b"\x93NUMPY\x01\x00" + (NPY_BYTES - 10).to_bytes(2, "little") + text.ljust(NPY_BYTES - 11) + b"\n"


class TokenWriter:
    """Writes one token file with its index and description. `source` must be equal for an unfinished file to go on."""

    def __init__(self, final: Path, kind: Kind, bos_id: int, source: Mapping[str, Any]) -> None:
        self.final, self.kind = final, kind
        self._bos_id = bos_id
        self._source = dict(source)
        self._paths = [final.with_name(f".{final.name}.{part}") for part in ("partial", "starts.partial")]
        self._files: list[BinaryIO] = []
        head = {"format": kind.format, "dtype": kind.dtype, "bos_id": bos_id, "source": self._source}
        self._pieces = Worklog(final.with_name(f".{final.name}.pieces"), head, f"`{final}`")
        self._digest = hashlib.sha256()
        self.num_tokens = self.num_documents = 0
        self.state: dict[str, Any] | None = None
        """Where the source stood behind the last piece; None at its beginning."""

    def __enter__(self) -> TokenWriter:
        self._pieces.__enter__()
        self._files = [open_without_following(path) for path in self._paths]
        self._resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        self._pieces.__exit__(kind, error, where)

    def write(self, ids: npt.NDArray[Any]) -> None:
        """Append ids, of one dimension."""
        tokens, starts = self._files
        content = ids.astype(self.kind.dtype, copy=False)
        found = np.flatnonzero(content == self._bos_id).astype(np.uint64) + np.uint64(self.num_tokens)
        tokens.write(content.data)
        starts.write(found.data)
        self._digest.update(content.data)
        self.num_tokens += len(content)
        self.num_documents += len(found)

    def end_piece(self, state: dict[str, Any]) -> None:
        """Put everything so far on the disk, read it back, and note that the source stands at `state`.

        Raises:
            OSError: what is read is not what was written.
        """
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        piece = {
            "num_tokens": self.num_tokens,
            "num_documents": self.num_documents,
            "sha256": self._digest.hexdigest(),
            "state": state,
        }
        self._read_back(piece, self._last())
        self._pieces.append(piece)
        self._digest = hashlib.sha256()

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the headers, and give the files their names; returns the description."""
        tokens, starts = self._files
        for file, header in (
            (tokens, self.kind.header(self.num_tokens)),
            (starts, npy_header("uint64", self.num_documents)),
        ):
            file.seek(0)
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
        description = {
            "kind": "nanofast.tokens",
            "format_version": 1,
            "format": self.kind.format,
            "dtype": self.kind.dtype,
            "size_bytes": self.kind.header_bytes + self.num_tokens * np.dtype(self.kind.dtype).itemsize,
            "num_tokens": self.num_tokens,
            "num_documents": self.num_documents,
            "bos_id": self._bos_id,
            **about,
            "source": self._source,
        }
        about_aside = self.final.with_name(f".{self.final.name}.about.partial")
        about_aside.write_text(json.dumps(description, indent=2) + "\n", "utf-8")
        flush(about_aside)
        self._paths[1].replace(f"{self.final}{STARTS_SUFFIX}")
        about_aside.replace(f"{self.final}{ABOUT_SUFFIX}")
        self._paths[0].replace(self.final)
        self._pieces.path.unlink()
        flush(self.final.parent)
        return description

    def _read_back(self, piece: dict[str, Any], before: dict[str, Any]) -> None:
        """A piece has the hash that was noted, and a BOS wherever a document is said to begin, and nowhere else."""
        itemsize = np.dtype(self.kind.dtype).itemsize
        at, num_documents, digest = before["num_tokens"], before["num_documents"], hashlib.sha256()
        with self._paths[0].open("rb") as tokens, self._paths[1].open("rb") as starts:
            for file, size in zip((tokens, starts), self._sizes(before), strict=True):
                _forget_cached(file)
                file.seek(size)
            while at < piece["num_tokens"]:
                content = tokens.read(min(READ_BYTES, (piece["num_tokens"] - at) * itemsize))
                if len(content) < itemsize:
                    raise OSError(f"`{self.final}`: the disk gave back fewer ids than were written; write it again")
                digest.update(content)
                ids = np.frombuffer(content, self.kind.dtype, len(content) // itemsize)
                found = np.flatnonzero(ids == self._bos_id).astype(np.uint64) + np.uint64(at)
                if starts.read(len(found) * 8) != found.tobytes():
                    raise OSError(f"`{self.final}`: the index read back is not that of its ids; write it again")
                at += len(ids)
                num_documents += len(found)
        if (digest.hexdigest(), num_documents) != (piece["sha256"], piece["num_documents"]):
            raise OSError(f"`{self.final}`: the disk gave back other ids than were written; write it again")

    def _resume(self) -> None:
        """Cut off what no finished piece tells of; begin anew where the disk does not hold what the pieces tell of."""
        try:
            for piece, before in zip(self._pieces.steps, [NOTHING, *self._pieces.steps], strict=False):
                self._read_back(piece, before)
        except OSError:
            self._pieces.begin_anew()
        last = self._last()
        self.num_tokens, self.num_documents = last["num_tokens"], last["num_documents"]
        self.state = last["state"]
        for file, size in zip(self._files, self._sizes(last), strict=True):
            file.truncate(size)
            file.seek(size)

    def _last(self) -> dict[str, Any]:
        return self._pieces.steps[-1] if self._pieces.steps else NOTHING

    def _sizes(self, piece: dict[str, Any]) -> tuple[int, int]:
        """Bytes of both files behind a finished piece; room for the headers, which are filled in at the end."""
        itemsize = np.dtype(self.kind.dtype).itemsize
        return self.kind.header_bytes + piece["num_tokens"] * itemsize, NPY_BYTES + piece["num_documents"] * 8


def _forget_cached(file: BinaryIO) -> None:
    """Have the disk asked, where the system can be told to forget what it holds of a file."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
