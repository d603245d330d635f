"""What a run ran on: versions, machine, memory in use. Facts for the log and the report; nothing is decided here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nanofast.distributed import available_cores

PACKAGES = ("nanofast", "torch", "numpy", "safetensors", "tokenizers", "rich", "tyro")


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with `+` when files differ from it; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        root = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=5
        )
        if root.returncode != 0 or not (Path(root.stdout.strip()) / "python" / "nanofast").is_dir():
            return None
        head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        dirty = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def versions() -> dict[str, str | None]:
    """Versions of what computes; None for what is not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {**found, "cuda": torch.version.cuda if torch.cuda.is_available() else None, "git_commit": git_commit()}


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Memory of the machine; None where the system does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, memory, operating system, device."""
    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
    }


def memory_in_use_bytes(device: torch.device) -> int | None:
    """On CUDA the most that tensors held so far, elsewhere this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        if sys.platform == "win32":
            return None
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
