"""Where nanofast keeps things of its own: data, tokenizers, runs, indexes."""

from __future__ import annotations

import os
from pathlib import Path


def home_folder(home: str | None = None) -> Path:
    """The folder that is named, else NANOFAST_HOME, else ~/.cache/nanofast."""
    return Path(home or os.environ.get("NANOFAST_HOME") or "~/.cache/nanofast").expanduser().absolute()
