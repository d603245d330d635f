"""Set-up from a bare clone: `.venv`, the packages, the built extension. `make` runs it before everything else.

    python3 scripts/setup.py [EXTRA …]        extras as in pyproject.toml: test, bench, dev, …

What was done is kept in `.venv/nanofast-setup.json`; while nothing changed, a call does nothing. While packages are
being installed, `.venv/nanofast-unfinished` lies there: a later call that finds it starts the environment over, because
an interrupted installer can leave a package that looks whole and is not.

Only the standard library, and syntax that Python 3.7 reads, so that one too old can be told so.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "nanofast-setup.json"
UNFINISHED = VENV / "nanofast-unfinished"
VENV_BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
VENV_PYTHON = VENV_BIN / ("python.exe" if os.name == "nt" else "python")
MATURIN = "maturin>=1.9.4,<2"
PIP_INSTALL = (VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
# What the extension is built from. Python files are used where they lie.
SOURCES = ("Cargo.toml", "Cargo.lock", "build.rs", "rust-toolchain.toml", "rust/src")


class MissingError(Exception):
    """Something that the machine lacks; the message says how to get it."""


def main():
    """Do what is missing; 0 when everything is there, 1 with one line on stderr when it cannot be."""
    try:
        require_tools()
        with one_at_a_time():
            set_up(set(sys.argv[1:]))
    except MissingError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(f"set-up: `{command}` failed with exit code {error.returncode}, see above", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next call starts where it must", file=sys.stderr)
        return 130
    return 0


def require_tools():
    """Name the first tool that is missing or too old."""
    if sys.version_info < (3, 10):  # noqa: UP036 (the message is the point)
        raise MissingError(
            f"Python 3.10 or newer needed; `{sys.executable}` is {sys.version.split()[0]}; install one (python.org, or "
            "your package manager) and name it: make PYTHON=python3.12 …"
        )
    if not shutil.which("cargo"):
        raise MissingError("cargo not found on PATH; get Rust from https://rustup.rs")
    if os.name != "nt" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise MissingError(
            "no C compiler (cc) on PATH; get one: apt-get install build-essential, dnf install gcc, or xcode-select "
            "--install"
        )
    found = subprocess.run(["cargo", "--version"], cwd=str(ROOT), capture_output=True)
    if found.returncode != 0:
        lines = found.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise MissingError(f"`cargo --version` failed ({lines[0]}); try: rustup toolchain install")
    version = tuple(map(int, re.findall(r"\d+", found.stdout.decode())[:2]))
    needed = re.search(r'rust-version = "(\d+)\.(\d+)', (ROOT / "Cargo.toml").read_text("utf-8"))
    if needed and version < tuple(map(int, needed.groups())):
        there, wanted = ".".join(map(str, version)), ".".join(needed.groups())
        raise MissingError(f"Rust {wanted} or newer needed; cargo is {there}; run: rustup update")


@contextlib.contextmanager
def one_at_a_time():
    """Let a second `make` in the same checkout wait for the first."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (ROOT / "pyproject.toml").open() as file:  # a lock needs some open file, not one of its own
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_up(extras):
    """Bring `.venv` to what `extras` and the sources ask for."""
    stamp = read_stamp()
    extras |= set(stamp.get("extras", []))
    packages = {"extras": sorted(extras), "packaging": digest_of_packaging(), "prefix": str(VENV)}
    finished = {**packages, "sources": digest_of_sources()}
    if stamp == finished and extension_exists():
        return
    uv = shutil.which("uv")
    if not usable_venv(needs_pip=not uv):
        make_venv(uv)
        stamp = {}
    # From here on the built extension may be older than the sources, or half there.
    write_stamp({key: value for key, value in stamp.items() if key != "sources"})
    if not any(VENV_BIN.glob("maturin*")):
        say("installing maturin")
        UNFINISHED.touch()
        run([uv, "pip", "install", "--quiet", MATURIN] if uv else [*PIP_INSTALL, MATURIN])
        UNFINISHED.unlink()
    develop = [VENV_PYTHON, "-m", "maturin", "develop", "--locked"]
    develop += ["--uv"] if uv else []
    develop += ["--extras", ",".join(sorted(extras))] if extras else []
    say("building the extension (some 3 minutes the first time)")
    if any(stamp.get(key) != value for key, value in packages.items()):
        run([*develop, "--skip-install"])  # a build that fails or is interrupted has touched no package
        say("installing the packages (about 6 GB the first time)")
        UNFINISHED.touch()
    run(develop)
    write_stamp(finished)
    with contextlib.suppress(FileNotFoundError):
        UNFINISHED.unlink()
    say("ready")


def read_stamp():
    """What the last finished set-up did; empty when there was none."""
    try:
        return {} if UNFINISHED.exists() else json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp):
    """Keep what was done; a call that dies in here leaves a file that `read_stamp` takes for none."""
    STAMP.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")


def digest_of_packaging():
    """A hash of the parts of pyproject.toml that say what is installed (the rest is for linters and tests)."""
    sections = re.split(r"(?m)^(?=\[)", (ROOT / "pyproject.toml").read_text("utf-8"))
    kept = [text for text in sections if text.startswith(("[build-system", "[project", "[tool.maturin"))]
    return hashlib.sha256("".join(kept).encode()).hexdigest()


def digest_of_sources():
    """A hash of the names and contents of all that the extension is built from."""
    digest = hashlib.sha256()
    for top in map(ROOT.joinpath, SOURCES):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file():
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def extension_exists():
    """Whether a built extension lies in the package (someone may have cleaned it away)."""
    return any(path.suffix in (".so", ".pyd") for path in (ROOT / "python" / "nanofast").glob("_nanofast.*"))


def usable_venv(needs_pip):
    """Whether `.venv` is finished, runs, and is at home here (an environment does not survive being moved)."""
    if UNFINISHED.exists() or not VENV_PYTHON.exists():
        return False
    code = "import sys; print(sys.prefix); assert sys.version_info >= (3, 10)" + ("; import pip" if needs_pip else "")
    try:
        found = subprocess.run([str(VENV_PYTHON), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return found.returncode == 0 and os.path.realpath(found.stdout.decode().strip()) == os.path.realpath(str(VENV))


def make_venv(uv):
    """An empty `.venv`, in place of what is there."""
    say(f"making .venv with {'uv' if uv else 'venv'} (Python {sys.version.split()[0]})")
    if VENV.exists():
        shutil.rmtree(str(VENV))
    if uv:
        run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, VENV])
        return
    try:
        import ensurepip  # noqa: F401 (Debian ships Python without it)
    except ImportError:
        raise MissingError(
            "Python's venv module is not whole here; get it: apt-get install python3-venv, or install uv"
        ) from None
    run([sys.executable, "-m", "venv", VENV])


def run(command):
    """Run in the project's folder, inside its environment."""
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV), PIP_QUIET="1")
    environment["PATH"] = str(VENV_BIN) + os.pathsep + environment.get("PATH", "")
    for name in ("PYTHONHOME", "CONDA_PREFIX"):  # either would point maturin at another Python
        environment.pop(name, None)
    subprocess.run([str(part) for part in command], cwd=str(ROOT), env=environment, check=True)


def say(message):
    """One line on what takes time."""
    print(f"set-up: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
