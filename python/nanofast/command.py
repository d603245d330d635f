"""What every command does with words and mistakes: settings from words, and one line and an exit code instead of a
traceback.

    def main() -> int:
        return exit_code(lambda: work(parse_settings(Settings, sys.argv[1:], "python -m nanofast.something")))
"""

from __future__ import annotations

import contextlib
import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nanofast.config import ConfigError
from nanofast.errors import Error

USER_MISTAKE = 2
SIGNALLED = 128  # plus the signal's number

T = TypeVar("T")


def _one_line(boxed: str) -> str:
    """The sentence inside one of tyro's boxes, without its frame and hints."""
    lines: list[str] = []
    for line in boxed.splitlines():
        text = line.strip("│╭╮╰╯─ \t")
        if line.lstrip().startswith("╭"):
            continue
        if not text:
            if lines:
                break
            continue
        lines.append(text)
    return re.sub(r"\s+", " ", " ".join(lines)).rstrip(".") or "the command line could not be read"


def parse_settings(kind: type[T], words: Sequence[str], prog: str, **options: Any) -> T:
    """A dataclass of settings from words; `options` are tyro's. `--help` prints and exits 0.

    Raises:
        ConfigError: a mistake, in one line.
    """
    import tyro

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            settings: T = tyro.cli(kind, prog=prog, args=list(words), **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(f"{_one_line(captured.getvalue())}; --help lists all flags") from None
    return settings


def explained(error: BaseException) -> str:
    """An error in a line; what the operating system refused with the place that it refused."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"`{error.filename}`: {error.strerror.lower()}"
    return str(error)


def exit_code(work: Callable[[], int | None]) -> int:
    """Do the work; 0 or what it says, 2 for a mistake of the user's, told in a line, and 130 for Ctrl-C."""
    try:
        return work() or 0
    except (ConfigError, Error, OSError) as error:
        print(f"error: {explained(error)}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
