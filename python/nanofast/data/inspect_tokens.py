"""`python -m nanofast.data inspect tokens.bin`: what is in token files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nanofast.token_files import STARTS_SUFFIX, description_of, find_token_files


def inspect_tokens(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """One entry a file: how its ids are framed, how many there are, and what its description adds.

    Raises:
        nanofast.Error: a file that is truncated, or no token file.
    """
    from nanofast._nanofast import TokenFiles

    found = []
    for file in find_token_files(path):
        description = description_of(file) or {}
        ((framing, dtype, _, num_tokens),) = TokenFiles([file], None, description.get("dtype")).facts()
        found.append(
            {
                "file": file,
                "format": framing,
                "dtype": dtype,
                "num_tokens": num_tokens,
                "size_bytes": Path(file).stat().st_size,
                "num_documents": description.get("num_documents"),
                "has_index": Path(f"{file}{STARTS_SUFFIX}").is_file(),
                "tokenizer": description.get("tokenizer", {}).get("name"),
                "vocab_size": description.get("vocab_size"),
            }
        )
    return found


def described(files: list[dict[str, Any]]) -> str:
    """The files as a reader sees them."""
    lines = []
    for file in files:
        line = f"{file['file']}\n  {file['num_tokens']:,} tokens, {file['dtype']}, {file['format']}"
        if file["num_documents"] is not None:
            line += f"; {file['num_documents']:,} documents; made with {file['tokenizer']}"
        else:
            line += "; no description beside it, so dtype is as the file says, or uint16"
        lines.append(line)
    return "\n".join([*lines, f"{sum(file['num_tokens'] for file in files):,} tokens in {len(files)} files"])
