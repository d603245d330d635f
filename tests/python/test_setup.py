"""Set-up with make: what is missing is named, nothing is done twice, and what was interrupted is healed.

`uv`, `cargo` and `maturin` are stand-ins that write down how they were called, so that each test takes moments; the
project is a copy of the files that set-up reads, in a folder with a space in its name.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="make and POSIX signals")

# Makes an environment that shares this Python, and "installs" nothing.
FAKE_UV = """#!{python}
import os, pathlib, sys, time
log = pathlib.Path(os.environ["CALLS"])
log.open("a").write("uv " + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "venv":
    home = pathlib.Path(sys.argv[-1])
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").write_text("home = " + str(pathlib.Path(sys.executable).parent) + "\\n")
    (home / "bin" / "python").symlink_to(sys.executable)
else:
    maturin = pathlib.Path(os.environ["VIRTUAL_ENV"], "bin", "maturin")
    maturin.touch()
    if os.environ.get("STALL", "") == "maturin":
        pathlib.Path(os.environ["CALLS"] + ".stalled").touch()
        time.sleep(60)
"""
# `python -m maturin` finds this on PYTHONPATH.
FAKE_MATURIN = """
import os, pathlib, sys, time
pathlib.Path(os.environ["CALLS"]).open("a").write("maturin " + " ".join(sys.argv[1:]) + "\\n")
pathlib.Path("python/nanofast/_nanofast.abi3.so").touch()
when = os.environ.get("STALL", "")
if when == "install" and "--skip-install" not in sys.argv or when == "build" and "--skip-install" in sys.argv:
    pathlib.Path(os.environ["CALLS"] + ".stalled").touch()
    time.sleep(60)
sys.exit(int(os.environ.get("FAIL", "0")))
"""
FAKE_CARGO = "#!/bin/sh\necho cargo ${CARGO_IS:-1.95.0}\n"


class Project:
    """A copy of the project's set-up with stand-ins for the tools."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"
        self.calls_file = folder / "calls"
        self.tools = folder / "tools"
        (self.root / "rust" / "src").mkdir(parents=True)
        (self.root / "rust" / "src" / "lib.rs").write_text("// nothing\n")
        (self.root / "python" / "nanofast").mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"):
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.tools.mkdir()
        self.tool("uv", FAKE_UV.format(python=sys.executable))
        self.tool("cargo", FAKE_CARGO)
        self.tool("cc", "#!/bin/sh\n")
        for name in ("sh", "make", "touch", "env"):
            self.link(name)
        (self.tools / "python3").symlink_to(sys.executable)
        (self.tools / "maturin.py").write_text(FAKE_MATURIN)

    def tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def link(self, name: str) -> None:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name}")
        (self.tools / name).symlink_to(found)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.tools), "PYTHONPATH": str(self.tools), "CALLS": str(self.calls_file), **more}

    def make(self, target: str = "setup-base", **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.tools / "make"), "-C", str(self.root), target]
        return subprocess.run(
            command,
            env=self.environment(**environment),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def made(self, target: str = "setup-base", **environment: str) -> list[str]:
        """The tools that a successful `make` called."""
        before = len(self.calls())
        done = self.make(target, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.calls()[before:]

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_bare_clone_is_set_up_once(project: Project):
    first = project.made()
    assert [call.split()[:2] for call in first] == [
        ["uv", "venv"],
        ["uv", "pip"],
        ["maturin", "develop"],
        ["maturin", "develop"],
    ]
    assert project.made() == []
    assert project.made() == []


def test_changed_rust_is_built_and_nothing_else(project: Project):
    project.made()
    (project.root / "rust" / "src" / "added.rs").write_text("// more\n")
    assert project.made() == ["maturin develop --locked --uv"]
    assert project.made() == []


def test_touching_a_file_changes_nothing(project: Project):
    project.made()
    os.utime(project.root / "rust" / "src" / "lib.rs")
    os.utime(project.root / "Cargo.toml")
    assert project.made() == []


def test_changed_python_and_linter_settings_change_nothing(project: Project):
    project.made()
    (project.root / "python" / "nanofast" / "added.py").touch()
    text = (project.root / "pyproject.toml").read_text()
    (project.root / "pyproject.toml").write_text(text.replace("line-length = 120", "line-length = 99"))
    assert project.made() == []


def test_a_changed_dependency_is_installed(project: Project):
    project.made()
    text = (project.root / "pyproject.toml").read_text()
    (project.root / "pyproject.toml").write_text(text.replace('"rich>=13.7"', '"rich>=14"'))
    assert [call.split()[0] for call in project.made()] == ["maturin", "maturin"]
    assert project.made() == []


def test_extras_are_added_and_kept(project: Project):
    project.made("setup-base")
    assert "--extras test" in project.made("setup-test")[-1]
    assert project.made("setup-base") == []
    assert "--extras bench,dev,test" in project.made("setup-dev")[-1]
    assert project.made("setup-test") == []


def test_a_lost_extension_is_built_again(project: Project):
    project.made()
    (project.root / "python" / "nanofast" / "_nanofast.abi3.so").unlink()
    assert project.made() == ["maturin develop --locked --uv"]


def interrupt(project: Project, when: str, how: signal.Signals) -> None:
    """Stop a set-up in the middle of a step, as Ctrl-C or a lost machine would."""
    command = [sys.executable, "scripts/setup.py"]
    stalled = Path(f"{project.calls_file}.stalled")
    process = subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment(STALL=when),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not stalled.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, how)
    assert process.wait(60) != 0
    stalled.unlink()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("what", ["maturin", "install"])
def test_an_interrupted_installation_starts_over(project: Project, what: str, how: signal.Signals):
    interrupt(project, what, how)
    (project.root / ".venv" / "half").touch()
    assert project.made()[0].startswith("uv venv")
    assert not (project.root / ".venv" / "half").exists()
    assert project.made() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_goes_on_and_keeps_the_packages(project: Project, how: signal.Signals):
    interrupt(project, "build", how)
    (project.root / ".venv" / "kept").touch()
    assert {call.split()[0] for call in project.made()} == {"maturin"}
    assert (project.root / ".venv" / "kept").exists()
    assert project.made() == []


def test_after_an_interrupted_build_the_extension_is_not_trusted(project: Project):
    project.made()
    source = project.root / "rust" / "src" / "lib.rs"
    before = source.read_text()
    source.write_text("// changed, and soon changed back\n")
    interrupt(project, "install", signal.SIGKILL)
    source.write_text(before)
    assert project.made() == ["maturin develop --locked --uv"]


def test_a_failed_build_says_so_and_is_tried_again(project: Project):
    project.made()
    (project.root / "rust" / "src" / "lib.rs").write_text("// wrong\n")
    failed = project.make(FAIL="1")
    assert failed.returncode != 0
    assert "maturin develop" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert project.made() == ["maturin develop --locked --uv"]


def test_a_moved_project_is_installed_again(project: Project):
    project.made()
    project.root = project.root.rename(project.root.with_name("elsewhere"))
    assert project.made()[-1].startswith("maturin develop")
    assert project.made() == []


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [("cargo", "rustup.rs"), ("cc", "build-essential"), ("python3", "Python 3.10 or newer")],
)
def test_a_missing_tool_is_named_in_one_line(project: Project, missing: str, remedy: str):
    (project.tools / missing).unlink()
    failed = project.make()
    assert failed.returncode != 0
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, failed.stderr
    assert remedy in lines[0]
    assert project.calls() == []


def test_a_cargo_too_old_is_named(project: Project):
    failed = project.make(CARGO_IS="1.70.0")
    assert failed.returncode != 0
    assert "1.90 or newer needed; cargo is 1.70; run: rustup update" in failed.stderr


def test_two_calls_at_once_do_the_work_once(project: Project):
    command = [sys.executable, str(project.root / "scripts" / "setup.py")]
    both = [subprocess.Popen(command, env=project.environment(), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert sum(call.startswith("uv venv") for call in project.calls()) == 1
    assert sum(call.startswith("maturin") for call in project.calls()) == 2
