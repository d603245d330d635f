"""The paragraph "What may touch what" of ARCHITECTURE.md as functions: a file's name and text → complaints.

Text in, words out, so that test_layers.py can also hand in a file that breaks a rule and see it found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# Level of each module of the crate. 0 uses 0; 1 uses 0 and no other module of 1; 2 uses 0, 1 and 2; 3 uses all, and
# nobody uses 3. What else is of level 2 are parts of the pipeline in files of their own.
LEVELS = {
    **dict.fromkeys(
        (
            *("error", "config", "conversation", "ragged", "state", "metrics", "pool", "quarantine", "read_at"),
            "sync",
            "account",
        ),
        0,
    ),
    **dict.fromkeys(("plan", "source", "token_file", "tokenizer", "mixture", "packing", "reorder", "ring"), 1),
    **dict.fromkeys(
        (
            *("admission", "budget", "giants", "feed", "floor", "lane", "piece", "row_groups", "sources", "windows"),
            *("pipeline", "window_pipeline", "loader"),
        ),
        2,
    ),
    "bindings": 3,
}
# Where `unsafe` may stand, and how often where a number is stated.
UNSAFE = {"account.rs": 2, "ring.rs": None, "tokenizer/": None, "bindings/loader.rs": 1, "bindings/arrow.rs": None}
RUN_AS_MODULES = {"train", "generate", "evaluate", "report", "huggingface", "chat", "bench", "doctor", "data.__main__"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
FORBIDDEN_SUFFIXES = ("_v2", "_v3", "_serial", "_fast", "_slow", "_new", "_old")
RANK_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"}


def rust_code(text: str) -> str:
    """The text without comments, strings and the tests at its end."""
    text = re.split(r"(?m)^#\[cfg\((?:test|all\(test, .*?\))\)\]\s*\n\s*mod ", text)[0]
    text = re.sub(r'b?r(#*)".*?"\1', '""', text, flags=re.DOTALL)
    comment_or_string = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\""
    return re.sub(comment_or_string, lambda m: '""' if m[0][0] == '"' else "", text, flags=re.DOTALL)


def used_modules(code: str, top_level: bool) -> set[str]:
    """First parts of all `crate::…` paths, groups included; in a file at the crate's top also of `super::…`."""
    roots = "crate|super" if top_level else "crate"
    found = set(re.findall(rf"\b(?:{roots})::(\w+)", code))
    for group in re.findall(rf"\b(?:{roots})::\{{(.*?)\}};", code, flags=re.DOTALL):
        depth_0 = re.sub(r"\{[^{}]*\}", "", group)
        found |= {part.strip().split("::")[0] for part in depth_0.split(",")}
    return found & LEVELS.keys()


def rust_complaints(path: str, text: str) -> Iterator[str]:
    """What a Rust file (its path under rust/src) does that its place does not allow."""
    if path == "lib.rs":
        return
    module = path.split("/")[0].removesuffix(".rs")
    if module not in LEVELS:
        yield f"{path}: module `{module}` has no level; give it one in tests/python/layers.py and ARCHITECTURE.md"
        return
    code, level = rust_code(text), LEVELS[module]
    for used in sorted(used_modules(code, "/" not in path) - {module}):
        if LEVELS[used] > level or LEVELS[used] == level == 1:
            yield f"{path} (level {level}) uses `{used}` (level {LEVELS[used]})"
    yield from _unsafe_complaints(path, code)
    if module != "pipeline" and re.search(r"\bthread::(?!available_parallelism|JoinHandle|panicking)", code):
        yield f"{path} touches threads; they live in pipeline"
    if module != "bindings" and re.search(r"\b(pyo3|numpy)::", code):
        yield f"{path} names pyo3 or numpy; only bindings/ may"
    if module not in ("source", "bindings") and re.search(r"\b(parquet|arrow_\w+|object_store)::", code):
        yield f"{path} names parquet, arrow or object_store; only source/ may"
    if re.search(r"\b(println|eprintln|print|eprint|dbg)!|\benv::", code):
        yield f"{path} prints or reads the environment; Rust counts, Python reports"
    yield from _name_complaints(path, re.findall(r"\b(?:fn|mod|struct|enum|trait)\s+(\w+)", code))


def _unsafe_complaints(path: str, code: str) -> Iterator[str]:
    times = len(re.findall(r"\bunsafe\b", code))
    allowed = [
        limit for place, limit in UNSAFE.items() if path == place or (place.endswith("/") and path.startswith(place))
    ]
    if times and not allowed:
        yield f"{path} holds `unsafe`; it lives in {', '.join(UNSAFE)}"
    elif allowed and allowed[0] is not None and times > allowed[0]:
        yield f"{path} holds `unsafe` {times} times; allowed: {allowed[0]}"


def _name_complaints(path: str, defined: list[str]) -> Iterator[str]:
    parts = re.split(r"[/.]", path)
    for name in [*parts, *defined]:
        if name.lower() in FORBIDDEN_NAMES:
            yield f"{path}: the name `{name}` says nothing about what is in it"
        if name.endswith(FORBIDDEN_SUFFIXES):
            yield f"{path}: `{name}` puts a variation into a name; make it a type or a parameter"


def python_complaints(module: str, text: str) -> Iterator[str]:
    """What a Python module (its name below `nanofast`) does that its place does not allow."""
    tree = ast.parse(text)
    imported = set(_imported(tree, module))
    for one, other in (("model", "loader"), ("loader", "model")):
        if module == one and f"nanofast.{other}" in imported:
            yield f"{one} imports {other}"
    for node in ast.walk(tree):
        if _reads_arguments(node) and module not in RUN_AS_MODULES:
            yield f"{module}, line {node.lineno}: reads the command line; only modules run with -m may"  # type: ignore[attr-defined]
        if isinstance(node, ast.Constant) and node.value in RANK_VARIABLES and module != "distributed":
            yield f"{module}, line {node.lineno}: names {node.value}; only distributed.py reads it"
    for node in tree.body:
        if not _is_quiet(node):
            yield f"{module}, line {node.lineno}: something happens at import"
    defined = [node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    yield from _name_complaints(module, defined)


def _imported(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "nanofast" + ("." + module.rpartition(".")[0] if "." in module else "")
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _reads_arguments(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "argv" and isinstance(node.value, ast.Name) and node.value.id == "sys"
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("parse_args", "parse_known_args")
        and not node.args
        and not node.keywords
    )


def _is_quiet(node: ast.stmt) -> bool:
    """Whether a statement at a module's top only defines: no call for its effect, no loop, no file, no thread."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        test = ast.unparse(node.test)
        # The warning about a debug build is asked for by the conventions.
        return test in ("__name__ == '__main__'", "_DEBUG_BUILD") or all(map(_is_quiet, [*node.body, *node.orelse]))
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    if isinstance(node, ast.Try):
        return all(map(_is_quiet, node.body))
    return isinstance(node, quiet)
