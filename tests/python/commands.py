"""Commands of `python -m nanofast.data`, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys


def data_command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nanofast.data", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)
