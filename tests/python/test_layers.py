"""The code keeps to "What may touch what" in ARCHITECTURE.md (as layers.py has it), and breaking it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layers import python_complaints, rust_complaints

ROOT = Path(__file__).resolve().parents[2]
RUST = ROOT / "rust" / "src"
PYTHON = ROOT / "python" / "nanofast"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PYTHON).with_suffix("").parts)


def test_rust_modules_touch_only_what_they_may():
    files = sorted(RUST.rglob("*.rs"))
    assert files
    complaints = [
        line for path in files for line in rust_complaints(path.relative_to(RUST).as_posix(), path.read_text("utf-8"))
    ]
    assert not complaints, "\n".join(complaints)


def test_python_modules_touch_only_what_they_may():
    files = sorted(PYTHON.rglob("*.py"))
    assert files
    complaints = [line for path in files for line in python_complaints(module_name(path), path.read_text("utf-8"))]
    assert not complaints, "\n".join(complaints)


def test_train_stays_short():
    assert len((PYTHON / "train.py").read_text("utf-8").splitlines()) < 100


def test_importing_the_package_loads_numpy_alone():
    code = (
        "import sys, threading\n"
        "before = set(sys.modules)\n"
        "import nanofast\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(tops - sys.stdlib_module_names))\n"
        "assert threading.active_count() == 1\n"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) <= {"nanofast", "numpy"}, found.stdout


def test_the_loader_and_the_sample_corpus_are_imported_without_torch():
    code = "import sys, nanofast.loader, nanofast.distributed, nanofast.data.sample; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("config.rs", "use crate::packing::Packer;", "uses `packing`"),
        ("config.rs", "use super::packing::Packer;", "uses `packing`"),
        ("packing/concat.rs", "use crate::{error::Result, tokenizer::{A, B}};", "uses `tokenizer`"),
        ("packing/concat.rs", "fn f() { crate::ring::f() }", "uses `ring`"),
        ("loader.rs", "use crate::bindings::X;", "uses `bindings`"),
        ("plan.rs", "fn f() { unsafe { g() } }", "`unsafe`"),
        ("bindings/loader.rs", "fn f() { unsafe { g() } unsafe { g() } }", "2 times"),
        ("ring.rs", "fn f() { std::thread::spawn(g); }", "threads"),
        ("packing/mod.rs", "use pyo3::prelude::*;", "pyo3"),
        ("plan.rs", "use parquet::file::X;", "parquet"),
        ("metrics.rs", 'fn f() { println!("x"); }', "prints"),
        ("packing/helpers.rs", "", "says nothing"),
        ("plan.rs", "fn deal_v2() {}", "variation"),
        ("surprise.rs", "", "no level"),
    ],
)
def test_a_broken_rust_rule_is_found(path: str, text: str, complaint: str):
    assert any(complaint in line for line in rust_complaints(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "packing/concat.rs",
            "// crate::tokenizer\n/// `use crate::ring`\nuse crate::error::Result;\nuse super::Packer;",
        ),
        ("packing/mod.rs", 'const TEXT: &str = "unsafe crate::ring";'),
        ("packing/mod.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::tokenizer::Tokenizer;\n}"),
        ("loader.rs", "use crate::{pipeline::Pipeline, ring::Ring, error::{Error, Result}};"),
        ("pipeline.rs", "fn f() { std::thread::scope(|_| ()); }"),
    ],
)
def test_a_kept_rust_rule_is_left_alone(path: str, text: str):
    assert not list(rust_complaints(path, text))


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("model", "from nanofast.loader import TokenLoader", "imports loader"),
        ("loader", "def f():\n    from . import model", "imports model"),
        ("checkpoint", "import sys\ndef f(): return sys.argv[1:]", "command line"),
        ("checkpoint", "def f(parser): return parser.parse_args()", "command line"),
        ("loader", "import os\ndef f(): return os.environ.get('WORLD_SIZE')", "only distributed.py"),
        ("trainer", "print('hello')", "at import"),
        ("trainer", "for i in range(3):\n    pass", "at import"),
        ("data.utils", "", "says nothing"),
        ("optim", "def step_fast(): pass", "variation"),
    ],
)
def test_a_broken_python_rule_is_found(module: str, text: str, complaint: str):
    assert any(complaint in line for line in python_complaints(module, text))
