"""What tests of the memory limit share: the least limit of a loader, and what a fresh process takes.

python memory_parts.py SETTINGS     settings as JSON; prints what the loader took, as JSON
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import nanofast


def least_memory(data: Any, tokenizer: nanofast.Tokenizer, *sizes: int, **settings: Any) -> int:
    """The least `memory_limit_bytes` with which a loader can be made, as its refusal says."""
    with pytest.raises(ValueError, match="memory_limit_bytes = 1: must be at least") as refused:
        nanofast.TokenLoader(data, tokenizer, *sizes, **settings, memory_limit_bytes=1)
    return int(re.findall(r"at least (\d+)", str(refused.value))[0])


def resident(key: str) -> int:
    """Bytes of this process by a key of /proc/self/status: VmRSS, VmHWM (the most so far)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) << 10


def taken(settings: dict[str, Any]) -> dict[str, Any]:
    """Makes a loader of `settings` in a fresh process and reads `batches` of it."""
    command = [sys.executable, __file__, json.dumps(settings)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def main() -> None:
    settings = json.loads(sys.argv[1])
    data, (batch_size, sequence_length) = settings.pop("data"), settings.pop("sizes")
    num_batches, num_bytes = settings.pop("batches", None), settings.pop("bytes", None)
    tokenizer = nanofast.Tokenizer.from_name(settings.pop("tokenizer", "r50k_base"))
    tokenizer.encode("a first word")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident("VmRSS")
    with nanofast.TokenLoader(data, tokenizer, batch_size, sequence_length, **settings) as loader:
        error = None
        try:
            for _ in islice(loader.numpy(copy=False), num_batches):
                if num_bytes is not None and loader.metrics()["ledger"]["bytes"] >= num_bytes:
                    break
        except MemoryError as refused:
            error = str(refused)
        memory = loader.metrics()["memory"]
    print(json.dumps({"resident": resident("VmHWM") - before, "error": error, **memory}))


if __name__ == "__main__":
    main()
