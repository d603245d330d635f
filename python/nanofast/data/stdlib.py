"""The running Python installation as a text corpus: the standard library's sources and documentation.

A document is a module's head, a top-level definition, or a section of the documentation. Nothing is imported and
nothing is run, except `builtins` and `pydoc_data`, which hold the documentation that no source file does.

    argparse.py ──► head (docstring, imports, constants) │ class HelpFormatter │ class Action │ def _get_action_name …
    pydoc_data  ──► "The "assert" statement" │ "Assignment statements" │ "Augmented assignment statements" │ …

Test suites are left out: half of the installations do not have them, so that with and without them the corpus is the
same, and a small model writes better Python when it has not learned from tables of expected values.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import os
import platform
import re
import sys
import sysconfig
import tokenize
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

# Folders that are no part of the library's own prose and code: what a user installed, tests, and `encodings`, nearly
# all of which (1.4 MB in Python 3.11) is tables of code pages. `pydoc_data` is read as documentation instead.
_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
# Files made by the build or by the owner of the machine, which hold paths of that machine.
_SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")
# Shorter pieces (an empty `__init__.py`, a bare import) teach nothing.
_MIN_CHARACTERS = 40
_BOUND = re.compile(r"\$\w+(, )?")
_HEADING = re.compile(r"^(?P<title>\S.*)\n(?P<line>[*=\-~]{3,})$", re.MULTILINE)


def source_files() -> list[Path]:
    """The library's source files in the order of their paths; empty when the library is not a folder on disk."""
    found: list[Path] = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        names = (name for name in files if name.endswith(".py") and not name.startswith(_SKIPPED_FILES))
        found += [Path(folder, name) for name in names]
    return sorted(found)


def name() -> str:
    """A folder name for this installation's corpus, equal only where the sources have equal names and sizes."""
    digest = hashlib.sha256()
    root = Path(sysconfig.get_path("stdlib"))
    for path in source_files():
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    return f"{sys.implementation.name}-{platform.python_version()}-{digest.hexdigest()[:8]}"


def documents() -> list[str]:
    """Every document of this installation, each once, in an order that depends on the texts alone.

    The order is that of the texts' hashes: it mixes modules, so that a shard is a fair sample of the whole.
    """
    texts: dict[str, str] = {}
    for piece in _pieces():
        text = piece.strip("\n") + "\n"
        if len(text) >= _MIN_CHARACTERS:
            # The reference repeats sections under another kind of underline; they count as one.
            texts.setdefault(_HEADING.sub(r"\g<title>", text), text)
    return sorted(texts.values(), key=lambda text: hashlib.sha256(text.encode()).digest())


def _pieces() -> Iterator[str]:
    for path in source_files():
        yield from _definitions(path)
    yield from _topics()
    yield from _builtins()


def _definitions(path: Path) -> Iterator[str]:
    """Cuts a module before each top-level definition, with its decorators and the comments right above it."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the library are not the user's business
            tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError):
        return  # an installation may carry templates and files in an encoding of their own
    lines = source.splitlines(keepends=True)
    begin = 0
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        cut = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        while cut > begin and lines[cut - 1].startswith("#"):
            cut -= 1
        yield "".join(lines[begin:cut])
        begin = cut
    yield "".join(lines[begin:])


def _topics() -> Iterator[str]:
    """The language reference that `help()` shows, cut before each underlined heading."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # slim installations leave it out
        return
    for topic in topics.values():
        cuts = [match.start() for match in _HEADING.finditer(topic) if len(match["title"]) == len(match["line"])]
        for begin, end in zip([0, *cuts], [*cuts, len(topic)], strict=True):
            yield topic[begin:end]


def _builtins() -> Iterator[str]:
    """Signatures and documentation of the built-in functions and types, which have no source in Python."""
    for name, thing in sorted(vars(builtins).items()):
        # not what `site`, notebooks and debuggers put there: the corpus would depend on who makes it
        is_own = isinstance(thing, types.BuiltinFunctionType) or (
            isinstance(thing, type) and thing.__module__ == "builtins"
        )
        if name.startswith("_") or not is_own:
            continue
        parts = [_described(name, thing)]
        if isinstance(thing, type):
            methods = sorted((key, value) for key, value in vars(thing).items() if not key.startswith("_"))
            parts += [_described(f"{name}.{key}", value) for key, value in methods if callable(value)]
        yield "\n\n".join(part for part in parts if part)


def _described(name: str, thing: object) -> str:
    documentation = getattr(thing, "__doc__", None)
    if not isinstance(documentation, str):
        return ""
    signature = getattr(thing, "__text_signature__", None) or "(...)"
    body = "\n".join(f"    {line}".rstrip() for line in documentation.strip().splitlines())
    # `($self, x, /)` marks with $ the argument that a caller does not write.
    return f"{name}{_BOUND.sub('', signature)}\n{body}"
