"""What ends a command early is no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python"


@pytest.mark.parametrize("command", ["generate", "chat", "evaluate", "huggingface", "train"])
def test_ctrl_c_while_torch_is_loaded_ends_quietly(tmp_path: Path, command: str):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")  # who sends it is all the same
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE)])}
    line = [sys.executable, "-m", f"nanofast.{command}"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    said = "interrupted before the first step; nothing was trained\n" if command == "train" else ""
    assert done.stderr == said
    assert done.stdout == ""
