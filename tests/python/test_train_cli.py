"""`python -m nanofast.train` as a user runs it: real processes, the real loader, a very small model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanofast.build import _claim_folder
from nanofast.config import Config
from nanofast.derive import derive
from nanofast.runlog import read_log
from nanofast.train import run as train

SMALL = [
    *("--depth=1", "--n-embd=32", "--max_seq_len=32", "--total_batch_size=256", "--device-batch-size=2"),
    *("--eval-tokens=512", "--sample-tokens=8", "--eval-every=0", "--sample-every=0", "--dtype=float32"),
]


def run(corpus: tuple[Path, Path], *words: str, small: bool = True) -> subprocess.CompletedProcess[str]:
    data, tokenizer = corpus
    place = ["--data", str(data), "--tokenizer", str(tokenizer)] if small else []
    command = [sys.executable, "-m", "nanofast.train", *place, *(SMALL if small else []), *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def step_losses(run_dir: Path) -> list[str]:
    return [entry["loss"].hex() for entry in read_log(run_dir) if entry["kind"] == "step"]


def test_trains_and_leaves_log_checkpoint_samples_and_report(sample_corpus: tuple[Path, Path], tmp_path: Path) -> None:
    done = run(sample_corpus, "--run", str(tmp_path / "run"), "--num-iterations", "3")
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stdout
    entries = read_log(tmp_path / "run")
    kinds = [entry["kind"] for entry in entries]
    assert {"run", "step", "ledger", "checkpoint", "validation", "sample", "end"} == set(kinds)
    ledger = next(entry["ledger"] for entry in entries if entry["kind"] == "ledger")
    assert ledger["learned"] + ledger["masked"] + ledger["bos"] + ledger["padding"] >= 3 * 256
    assert entries[-1]["reason"] == "finished"
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    written = (tmp_path / "run" / "config.toml").read_text()
    assert "n_embd = 32" in written
    assert "torch_threads = " in written


def test_a_finished_run_can_be_sampled_and_evaluated(sample_corpus: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("--num-iterations=2", "--no-report", "--sample-every=-1", "--eval-every=-1")
    assert run(sample_corpus, "--run", str(folder), *words).returncode == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def module(name: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"nanofast.{name}", *more]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)

    done = module("generate", str(folder), "--prompt", "def ", "--num-samples", "2", "--num-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--- 1\ndef ")
    assert "--- 2\ndef " in done.stdout
    done = module("evaluate", str(folder), "--tokens", "512")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] >= 500
    assert 2 < found["bpb"] < 6
    done = module("generate", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nothing to resume in" in done.stderr


def test_resume_auto_continues_bit_for_bit_and_says_what_it_skipped(
    sample_corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("--num-iterations=6", "--save-every=2", "--no-report", "--sample-every=-1", "--eval-every=-1")
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert run(sample_corpus, "--run", str(straight), *words).returncode == 0
    assert run(sample_corpus, "--run", str(broken), *words).returncode == 0
    (broken / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    torn = broken / "checkpoints" / "step_00000004" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-7])
    done = run(sample_corpus, "--run", str(broken), "--resume", "auto", small=False)
    assert done.returncode == 0, done.stderr
    assert "step_00000006` has no manifest.json" in done.stdout
    assert "its manifest says" in done.stdout
    assert "at step 2" in done.stdout
    assert step_losses(broken) == step_losses(straight)
    weights = [run / "checkpoints" / "step_00000006" / "model.safetensors" for run in (straight, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_used_run_is_refused_and_one_gone_back_writes_its_own_steps(
    sample_corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = ("--save-every=1", "--keep-last=2", "--no-report", "--sample-every=-1", "--eval-every=-1")
    assert run(sample_corpus, "--run", str(folder), "--num-iterations=3", *words).returncode == 0
    log = (folder / "log.jsonl").read_bytes()
    done = run(sample_corpus, "--run", str(folder), "--num-iterations=3", *words)
    assert done.returncode == 2
    assert "its newest checkpoint is of step 3; pass --resume auto" in done.stderr
    assert (folder / "log.jsonl").read_bytes() == log
    older = folder / "checkpoints" / "step_00000002"
    kept = (folder / "checkpoints" / "step_00000003" / "model.safetensors").read_bytes()
    # other weights at step 3 tell the two courses apart
    done = run(sample_corpus, "--resume", str(older), "--num-iterations=3", "--matrix-lr=0.5", small=False)
    assert done.returncode == 0, done.stderr
    assert "abandoned-step_00000003" in done.stdout
    names = sorted(path.name for path in older.parent.iterdir())
    assert names == ["abandoned-step_00000003", "step_00000002", "step_00000003"]
    assert (older.parent / names[0] / "model.safetensors").read_bytes() == kept
    assert (older.parent / names[2] / "model.safetensors").read_bytes() != kept


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    config = derive(Config(), world_size=1, device_type="cpu")
    folders = [_claim_folder(config, tmp_path, None) for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)


def test_sigterm_finishes_the_step_saves_and_exits_with_143(sample_corpus: tuple[Path, Path], tmp_path: Path) -> None:
    data, tokenizer = sample_corpus
    command = [sys.executable, "-m", "nanofast.train", "--data", str(data), "--tokenizer", str(tokenizer), *SMALL]
    command += ["--run", str(tmp_path / "run"), "--num-iterations=1000000", "--no-report"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        log = tmp_path / "run" / "log.jsonl"
        for _ in range(1200):
            if log.exists() and '"step": 2,' in log.read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    entries = read_log(tmp_path / "run")
    last = max(entry["step"] for entry in entries if entry["kind"] == "step")
    assert (tmp_path / "run" / "checkpoints" / f"step_{last:08d}").is_dir()
    assert entries[-1]["reason"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--device", "cuda:77"], {"CUDA_VISIBLE_DEVICES": ""}, "cuda"),
        (["--device", "no-such"], {}, "no-such"),
        ([], {"RANK": "first"}, "environment variable RANK must be a number; found `first`"),
        (["--tokenizer", "{folder}"], {}, "is a folder; expected a file"),
        (["--home", "{file}/home"], {}, "{file}"),
        (["--data-home", "{file}/data"], {}, "{file}"),
    ],
)
def test_what_is_found_wrong_on_the_way_is_one_line_and_exit_code_2(
    sample_corpus: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    file = tmp_path / "file"
    file.touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("nanofast.data.stdlib.documents", lambda: ["text"] * 1000)  # making the real ones takes long
    filled = [word.format(folder=tmp_path, file=file) for word in words]
    place = ["--data", str(sample_corpus[0])] if "--tokenizer" in words else []
    # in this process: only what this test changes differs from one case to the next
    assert train([*SMALL, "--home", str(tmp_path / "home"), *place, *filled]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert message.format(file=file) in told.err
    assert told.err.startswith("error: ")
    assert len(told.err.strip().splitlines()) == 1


def test_ctrl_c_before_the_first_step_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nanofast.data.sample.ensure_sample", interrupted)
    assert train([*SMALL, "--home", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted before the first step; nothing was trained\n"


def test_data_tokenizer_and_runs_go_where_flags_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    def made(home: Path, *, data_home: Path | None, tokenizer_home: Path | None) -> tuple[Path, Path]:
        asked.extend((home, data_home, tokenizer_home))
        raise FileNotFoundError("enough is known")

    monkeypatch.setattr("nanofast.data.sample.ensure_sample", made)
    places = [
        "--home",
        str(tmp_path / "h"),
        "--data-home",
        str(tmp_path / "d"),
        "--tokenizer-home",
        str(tmp_path / "t"),
    ]
    assert train([*SMALL, *places]) == 2
    assert asked == [tmp_path / "h", tmp_path / "d", tmp_path / "t"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dept", "3"], "unknown flag `--dept`; did you mean --depth"),
        (["--depth", "0"], "depth must be at least 1 layer"),
        (["midtraining"], "unknown stage `midtraining`"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--text-column", "body"], "column `body` not in"),
        (["--resume", "/nowhere/at/all"], "nothing to resume in `/nowhere/at/all`"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    sample_corpus: tuple[Path, Path], tmp_path: Path, words: list[str], message: str
) -> None:
    data, tokenizer = sample_corpus
    place = [] if "midtraining" in words else ["--data", str(data), "--tokenizer", str(tokenizer)]
    done = run(
        sample_corpus, *(words if "midtraining" in words else [*place, *words]), "--home", str(tmp_path), small=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
