"""`python -m nanofast.doctor`: what this machine and environment are, and what to mind; for bug reports too.

facts = examine(folder)      # plain data, as `--json` prints it
advice(facts)                # what is worth changing, in words
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanofast.command import exit_code, parse_settings

DISK_BYTES = 64 << 20
# A loader takes some 1.5 bytes of compressed text a token; a slower disk than this starves most GPUs' small models.
SLOW_DISK_MB_PER_SECOND = 50
# Torch with its CUDA libraries, a build of the extension, a sample corpus and a run with checkpoints.
LITTLE_SPACE_BYTES = 2 << 30
SIMD_FLAGS = ("avx2", "avx512f", "avx512_vbmi2", "avx512_bf16", "amx_bf16", "asimd", "sve")


@dataclass(frozen=True)
class Settings:
    """What this machine and environment are, and what to mind."""

    home: str | None = None
    """Folder whose disk is measured (NANOFAST_HOME)."""
    json: bool = False
    """Print everything as JSON."""


def examine(folder: Path) -> dict[str, Any]:
    """Versions, processor, threads, memory, GPU and the disk of `folder`, where 64 MB are written and read back."""
    import torch

    from nanofast import _nanofast
    from nanofast.distributed import share_cores
    from nanofast.environment import cpu_name, versions

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    threads = share_cores("cuda" if gpus else "cpu", 1)
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "debug_build": _nanofast.DEBUG_BUILD,
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "cpu": cpu_name(),
        "simd": _simd_flags(),
        "splitter": _nanofast.SPLITTER,
        "cores": _cores(),
        "torch_threads": threads.torch,
        "loader_threads": threads.loader,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_bytes": _memory_bytes(),
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "pinned_memory": _pins(torch),
        "disk": _disk(folder),
    }


def advice(facts: dict[str, Any]) -> list[str]:
    """What is worth changing."""
    found = []
    cores, omp = facts["cores"], facts["omp_num_threads"]
    usable = min(cores["usable"], cores["quota"] or cores["usable"])
    if facts["debug_build"]:
        found.append("the extension is a debug build, some twenty times slower: maturin develop --release")
    if cores["quota"] is not None and cores["quota"] < cores["usable"]:
        found.append(
            f"the container's quota is {cores['quota']:g} cores and {cores['usable']} are visible: set "
            f"OMP_NUM_THREADS={max(1, int(cores['quota']))} and num_threads={max(1, int(cores['quota']))}"
        )
    if omp is not None and not facts["gpus"] and omp.isdigit() and int(omp) < int(usable):
        found.append(f"OMP_NUM_THREADS={omp} holds torch to {omp} of {usable:g} cores; unset it to train on the CPU")
    if facts["splitter"] not in ("avx512", "avx2", "neon"):
        found.append("no AVX2: the tokenizer splits text character by character, several times slower than it could")
    if facts["gpus"] and not facts["pinned_memory"]:
        found.append("memory cannot be pinned, so copies to the GPU wait: raise `ulimit -l`")
    disk = facts["disk"]
    if disk["error"] is not None:
        found.append(f"`{disk['folder']}` cannot be written ({disk['error']}): set NANOFAST_HOME, or pass --home")
    elif disk["read_mb_per_second"] < SLOW_DISK_MB_PER_SECOND:
        found.append(
            f"the disk of `{disk['folder']}` reads {disk['read_mb_per_second']:.0f} MB/s: keep shards elsewhere"
        )
    if disk["free_bytes"] is not None and disk["free_bytes"] < LITTLE_SPACE_BYTES:
        found.append(f"`{disk['folder']}` has {disk['free_bytes'] / 1e9:.1f} GB left: checkpoints may not fit")
    return found


def _simd_flags() -> list[str]:
    """Of the instructions that matter here, those that the processor has; nothing where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    lines = (line.partition(":")[2].split() for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, []))
    return [flag for flag in SIMD_FLAGS if flag in flags]


def _cores() -> dict[str, Any]:
    """Cores there are, those that this process may run on, and the container's quota (None: no limit)."""
    from nanofast.distributed import available_cores

    quota = None
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        quota = None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    return {"all": os.cpu_count(), "usable": available_cores(), "quota": quota}


def _memory_bytes() -> int | None:
    """The machine's memory, or the container's limit where that is less."""
    from nanofast.environment import memory_bytes

    limits = [memory_bytes()]
    with contextlib.suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min((limit for limit in limits if limit is not None), default=None)


def _pins(torch: Any) -> bool | None:
    """Whether memory can be pinned; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    try:
        return bool(torch.zeros(1 << 20, dtype=torch.uint8).pin_memory().is_pinned())
    except RuntimeError:
        return False


def _disk(folder: Path) -> dict[str, Any]:
    """Free bytes of `folder`'s disk, and how fast 64 MB are written to it and read back past the system's cache."""
    existing = next(place for place in (folder, *folder.parents) if place.is_dir())
    facts: dict[str, Any] = {"folder": str(existing), "free_bytes": None, "error": None}
    facts |= {"write_mb_per_second": None, "read_mb_per_second": None}
    try:
        facts["free_bytes"] = shutil.disk_usage(existing).free
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            block = os.urandom(1 << 20)
            start = time.perf_counter()
            for _ in range(DISK_BYTES // len(block)):
                file.write(block)
            os.fsync(file.fileno())
            facts["write_mb_per_second"] = DISK_BYTES / 1e6 / (time.perf_counter() - start)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start = time.perf_counter()
            while file.read(1 << 20):
                pass
            facts["read_mb_per_second"] = DISK_BYTES / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        facts["error"] = (error.strerror or str(error)).lower()
    return facts


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts for people: a name and a text each."""
    cores, disk = facts["cores"], facts["disk"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    quota = "" if cores["quota"] is None else f", quota {cores['quota']:g}"
    memory = facts["memory_bytes"]
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 1e9:.0f} GB)" for gpu in facts["gpus"]) or "none"
    pinned = {None: "", True: "; memory can be pinned", False: "; memory cannot be pinned"}[facts["pinned_memory"]]
    rates = (
        disk["error"] or f"writes {disk['write_mb_per_second']:,.0f} and reads {disk['read_mb_per_second']:,.0f} MB/s"
    )
    free = "" if disk["free_bytes"] is None else f", {disk['free_bytes'] / 1e9:,.0f} GB free"
    return [
        ("versions", versions),
        ("system", facts["platform"]),
        (
            "processor",
            f"{facts['cpu']}; {' '.join(facts['simd']) or 'no flags known'}; splits with {facts['splitter']}",
        ),
        ("cores", f"{cores['usable']} of {cores['all']}{quota}"),
        ("threads", f"torch {facts['torch_threads']}, loader {facts['loader_threads']} when training"),
        ("memory", "not known" if memory is None else f"{memory / 1e9:.1f} GB"),
        ("GPU", gpus + pinned),
        ("disk", f"{disk['folder']}: {rates}{free}"),
    ]


def _work(settings: Settings) -> int:
    from nanofast.home import home_folder

    facts = examine(home_folder(settings.home))
    found = advice(facts)
    if settings.json:
        print(json.dumps({**facts, "advice": found}, indent=2))
        return 0
    for name, text in _lines(facts):
        print(f"{name:10} {text}")
    for line in found or ["nothing to mind"]:
        print(f"{'advice':10} {line}")
    return 0


def main() -> int:
    """Example: `python -m nanofast.doctor --json`."""
    settings = sys.argv[1:]
    return exit_code(lambda: _work(parse_settings(Settings, settings, "python -m nanofast.doctor")))


if __name__ == "__main__":
    sys.exit(main())
