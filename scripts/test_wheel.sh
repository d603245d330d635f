#!/usr/bin/env bash
# Installs the wheel of this machine from a folder into a new environment and runs the tests of the loader and the
# tokenizer there, without the source tree: `scripts/test_wheel.sh FOLDER [PYTHON]`
set -euo pipefail
wheels="$(cd "${1:?say where the wheels are}" && pwd)"
python="${2:-python3}"
tests="$(cd "$(dirname "$0")/../tests/python" && pwd)"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
# Not the package index's nanofast: the wheel that was just built, or nothing.
"$scratch/venv/bin/pip" install --quiet --no-index --no-deps --find-links "$wheels" nanofast
"$scratch/venv/bin/pip" install --quiet "nanofast[test]"
cp -r "$tests" "$scratch/tests"
cp "$(dirname "$0")/../pyproject.toml" "$scratch/tests/"
cd "$scratch/tests"
"$scratch/venv/bin/python" -c 'import nanofast, sys; print(sys.version, nanofast.__version__, nanofast.__file__)'
"$scratch/venv/bin/python" -m pytest -q -c pyproject.toml --rootdir . \
    test_stream.py test_resume.py test_tokenizer.py test_life.py test_bad_input.py
