"""What every command does with words and mistakes: settings from words, and one line and an exit code instead of a
traceback.

    def main() -> int:
        return exit_code(lambda: work(parse_settings(Settings, sys.argv[1:], "python -m nanofast.something")))
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

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


# What tyro says of a value that it cannot read, and the kind of value that would do.
UNREADABLE = (
    (r"Error parsing (--\S+): invalid literal for int\(\) with base 10: '(.*)'", "a whole number"),
    (r"Error parsing (--\S+): could not convert string to float: '(.*)'", "a number"),
    (r"Error parsing (--\S+): no type matching \S*INT\S* could be instantiated from \['(.*)'\]", "a whole number"),
    (r"Error parsing (--\S+): no type matching \S*FLOAT\S* could be instantiated from \['(.*)'\]", "a number"),
)


def _nearest_whole(text: str) -> str:
    """The whole numbers around a number that is none, for a message."""
    try:
        value = float(text)
        below, above = math.floor(value), math.ceil(value)
    except (ValueError, OverflowError):
        return ""
    return f"; nearest legal value: {below}" if below == above else f"; nearest legal values: {below} or {above}"


def _rule(sentence: str) -> str:
    """tyro's sentence on a value, as the rule that it breaks; sentences on other things stay as they are."""
    for pattern, wanted in UNREADABLE:
        if found := re.fullmatch(pattern, sentence):
            flag, text = found.groups()
            nearest = _nearest_whole(text) if wanted == "a whole number" else ""
            return f"{flag} takes {wanted}; found `{text}`{nearest}"
    if found := re.match(r"Missing value for argument '(--[^']*)'", sentence):
        return f"{found[1]} lacks its value"
    if found := re.fullmatch(r"invalid choice '(.*)' for argument '(--[^']*)'\. Expected one of \((.*)\)", sentence):
        choices = re.findall(r"'([^']*)'", found[3])
        near = difflib.get_close_matches(found[1], choices, n=1, cutoff=0.5)
        hint = f"; nearest legal value: {near[0]}" if near else ""
        return f"{found[2]} takes one of {', '.join(choices)}; found `{found[1]}`{hint}"
    return sentence


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
        raise ConfigError(f"{_rule(_one_line(captured.getvalue()))}; --help lists all flags") from None
    return settings


def local_path(text: str) -> Path:
    """An argument that names a file or folder of this machine; a URL is refused."""
    from nanofast.remote import require_local

    try:
        require_local("path", text)
    except Error as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def explained(error: BaseException) -> str:
    """An error in a line; what the operating system refused with the place that it refused."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"`{error.filename}`: {error.strerror.lower()}"
    return str(error)


def reader_is_gone() -> int:
    """The exit code when nobody reads the output any more (`| head`); what is left of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SIGNALLED + 13  # SIGPIPE, which Windows lacks


def tell(error: Exception, code: int = USER_MISTAKE, places: str = "") -> int:
    """Tell in a line on stderr what the user can mend, and give the exit code; anything else is raised again.

    `places` is what to do where the operating system refuses a file or folder.
    """
    if isinstance(error, ConfigError | Error):
        line = str(error)
    elif isinstance(error, ModuleNotFoundError):
        line = f"`{error.name}` is needed and not installed; get it: pip install {error.name}"
    elif isinstance(error, OSError):  # a folder that cannot be written, a disk that is full
        line = explained(error) + (f"; {places}" if places else "")
    elif _is_out_of_memory(error):
        line = (
            f"out of memory ({str(error).splitlines()[0]}); take a smaller model, shorter sequences or fewer rows; "
            "nanofast.train --dry-run estimates what a run needs"
        )
    else:
        raise error
    print(f"error: {line}", file=sys.stderr)
    return code


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from nanofast.memory import is_out_of_memory

    return is_out_of_memory(error)


def run_module(name: str) -> int:
    """The exit code of a module's `main`, which Ctrl-C ends quietly also while torch is loaded: that takes seconds."""
    return exit_code(lambda: importlib.import_module(name).main())


def exit_code(
    work: Callable[[], int | None], told: Callable[[Exception], int] = tell, interrupted: str | None = None
) -> int:
    """Do the work; 0 or what it says, 2 for a mistake of the user's, told in a line, and 130 for Ctrl-C.

    `told` tells an error and gives the exit code, or raises it again; `interrupted` is what to say of Ctrl-C. A reader
    of the output that goes away early (`| head`) is no mistake.
    """
    try:
        done = work() or 0
        sys.stdout.flush()  # here, where a reader that is gone is understood
        return done
    except BrokenPipeError:
        return reader_is_gone()
    except Exception as error:
        return told(error)
    except KeyboardInterrupt:
        if interrupted is not None:
            print(interrupted, file=sys.stderr)
        return SIGNALLED + signal.SIGINT
