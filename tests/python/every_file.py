"""Reads each column of each parquet file below a folder with a small memory limit; python every_file.py FOLDER

Prints, as JSON, how many were read and refused, and how much memory the process took over what it had.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import nanofast
from memory_parts import resident


def columns(path: Path) -> list[str]:
    """Those that pyarrow finds; any, where it finds none."""
    try:
        return list(pq.read_schema(path).names) or ["text"]
    except (OSError, pa.ArrowException):
        return ["text"]


def main(folder: Path) -> None:
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    files = {path: columns(path) for path in sorted(folder.rglob("*.parquet*")) if path.suffix != ".json"}
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before, read, refused = resident("VmRSS"), 0, 0
    for path, names in files.items():
        for name in names:
            settings = {"text_column": name, "epochs": 1, "memory_limit_bytes": 256 << 20, "num_threads": 2}
            try:
                with nanofast.TokenLoader(str(path), tokenizer, 1, 64, **settings) as loader:
                    for _ in loader.numpy(copy=False):
                        pass
                read += 1
            except (nanofast.Error, MemoryError):
                refused += 1
    print(json.dumps({"files": len(files), "read": read, "refused": refused, "bytes": resident("VmHWM") - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
