"""Commands of `python -m nanofast.data`, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys

# The command in a process whose files may have 5,000 bytes at most, which is what a full disk looks like.
SMALL_FILES = (
    "import resource, runpy, signal\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
    "runpy.run_module('nanofast.data', run_name='__main__')\n"
)


def data_command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nanofast.data", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)
