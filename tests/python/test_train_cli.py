"""`python -m nanofast.train` as a user runs it: the real loader, a very small model.

A process of its own only where that is the point; starting one takes longer than training in it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nanofast.config import Config, ConfigError
from nanofast.derive import derive
from nanofast.evaluate import EvaluateSettings, evaluate
from nanofast.huggingface import export_run, import_run
from nanofast.interrupts import SHOW_CURSOR
from nanofast.progress import Progress, StepView
from nanofast.run_folder import claim_folder
from nanofast.runlog import read_log
from nanofast.train import run as train

HIDE_CURSOR = "\x1b[?25l"
SMALL = [
    *("--depth=1", "--n-embd=32", "--max_seq_len=32", "--total_batch_size=256", "--device-batch-size=2"),
    *("--eval-tokens=512", "--sample-tokens=8", "--eval-every=0", "--sample-every=0", "--dtype=float32"),
]


def run(corpus: tuple[Path, Path], *words: str, small: bool = True) -> subprocess.CompletedProcess[str]:
    """Train in this process, as a process would: exit code, what it printed, what it complained of."""
    data, tokenizer = corpus
    place = ["--data", str(data), "--tokenizer", str(tokenizer)] if small else []
    whole = [*place, *(SMALL if small else []), *words]
    threads = torch.get_num_threads()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = train(whole)
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(whole, code, out.getvalue(), err.getvalue())


def step_losses(run_dir: Path) -> list[str]:
    return [entry["loss"].hex() for entry in read_log(run_dir) if entry["kind"] == "step"]


def test_trains_and_leaves_log_checkpoint_samples_and_report(sample_corpus: tuple[Path, Path], tmp_path: Path) -> None:
    place = ["--data", str(sample_corpus[0]), "--tokenizer", str(sample_corpus[1])]
    command = [sys.executable, "-m", "nanofast.train", *place, *SMALL, "--run", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"}
    done = subprocess.run(
        [*command, "--num-iterations=3"], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stdout
    assert "for comparison: xz reaches" in done.stdout
    entries = read_log(tmp_path / "run")
    kinds = [entry["kind"] for entry in entries]
    assert {"run", "step", "ledger", "checkpoint", "baselines", "validation", "sample", "end"} == set(kinds)
    ledger = next(entry["ledger"] for entry in entries if entry["kind"] == "ledger")
    assert ledger["learned"] + ledger["masked"] + ledger["bos"] + ledger["padding"] >= 3 * 256
    assert entries[-1]["reason"] == "finished"
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    written = (tmp_path / "run" / "config.toml").read_text()
    assert "n_embd = 32" in written
    assert "torch_threads = " in written


@pytest.fixture(scope="module")
def run_folder(sample_corpus: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, of the shape that can be exported."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ("--shape=plain", "--num-iterations=2", "--no-report", "--sample-every=-1", "--eval-every=-1")
    assert run(sample_corpus, "--run", str(folder), *words).returncode == 0
    return folder


def test_a_finished_run_can_be_sampled_evaluated_exported_and_imported(run_folder: Path, tmp_path: Path) -> None:
    folder = run_folder

    def module(name: str, *more: str) -> subprocess.CompletedProcess[str]:
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", [name, *more])
            code = importlib.import_module(f"nanofast.{name}").main()
        return subprocess.CompletedProcess(more, code, out.getvalue(), err.getvalue())

    done = module("generate", str(folder), "--prompt", "def ", "--num-samples", "2", "--num-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--- 1\ndef ")
    assert "--- 2\ndef " in done.stdout
    done = module("evaluate", str(folder), "--tokens", "512")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] >= 500
    assert 2 < found["bpb"] < 6
    imported = import_run(export_run(str(folder), tmp_path / "there", None), str(tmp_path / "back"), None)
    data = read_log(folder)[0]["config"]["data"]["data"]
    same = evaluate(EvaluateSettings(str(imported), data=data, tokens=512, device="cpu"))
    assert same["bpb"] == pytest.approx(found["bpb"], rel=1e-6)
    with pytest.raises(ConfigError, match="is in use; name another"):
        import_run(tmp_path / "there", str(imported), None)


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
    folders = [claim_folder(config, tmp_path, None) for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)


def test_dry_run_prints_the_plan_and_writes_nothing(sample_corpus: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--run", str(tmp_path / "run"), "--target-flops=1e9", "--price-per-hour=36000", "--dry-run"]
    done = run(sample_corpus, *words)
    assert done.returncode == 0, done.stderr
    told = {line.split(" ")[0]: line for line in done.stdout.splitlines()}
    assert 'settings   model: depth 1, shape "nanochat", sequence_length 32, n_embd 32, n_head 1' in done.stdout
    assert "parameters (embedding" in told["model"]
    assert "MFLOP a token" in told["compute"]
    # 1e9 FLOP at 6 · (12·32² + 32 + 4096·32) + 12·32·32 a token, in steps of 256 tokens
    assert told["horizon"].startswith("horizon    4 steps, 1,024 tokens")
    assert " GB a process, about 0:0" in told["estimate"]
    assert "at 36000 an hour" in told["estimate"]
    assert not (tmp_path / "run").exists()


def test_ctrl_c_twice_ends_at_once() -> None:
    """The first is remembered; the second does not wait for what is being done."""
    code = (
        "import time\nfrom nanofast.interrupts import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    print('begun', flush=True)\n"
        "    while not stop.signal_number: time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT


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


@pytest.mark.parametrize("module", ["generate", "evaluate"])
@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["{run}", "--device", "cuda:77"], {"CUDA_VISIBLE_DEVICES": ""}, "sees no CUDA device"),
        (["{run}", "--device", "no-such"], {}, "device `no-such` is not known"),
        (["{run}", "--seeed", "3"], {}, "--help lists all flags"),
        (["{folder}/nowhere"], {}, "nothing to resume in"),
        (["--home", "{folder}"], {}, "no checkpoint under"),
    ],
)
def test_a_mistake_with_a_trained_model_is_one_line_and_exit_code_2(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    words: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    filled = [word.format(run=run_folder, folder=tmp_path) for word in words]
    monkeypatch.setattr(sys, "argv", [module, *filled])
    assert importlib.import_module(f"nanofast.{module}").main() == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.startswith("error: ")
    assert len(told.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "words", "environment", "message"),
    [
        ("evaluate", ["{run}"], {"RANK": "first"}, "RANK must be a number; found `first`"),
        ("evaluate", ["{run}"], {"RANK": "1"}, "RANK is 1 but WORLD_SIZE is 1"),
        ("evaluate", ["{run}"], {"WORLD_SIZE": "2"}, "process 0 of 2 on `cpu` could not be set up"),
        ("evaluate", ["{run}", "--core", "{folder}"], {}, "has no `core.yaml`"),
        ("evaluate", ["{run}", "--tokens", "0"], {}, "tokens must be at least 1"),
        ("evaluate", ["{run}", "--data", "{folder}/none"], {}, "none"),
        ("generate", ["{run}", "--top-p", "0"], {}, "top_p must be more than 0"),
        ("generate", ["{run}", "--temperature", "nan"], {}, "temperature must be at least 0 and finite"),
        ("huggingface", ["import", "{folder}", "x", "--home", "{folder}"], {}, "has no config.json"),
        ("huggingface", ["send", "{run}", "x"], {}, "--help lists all flags"),
    ],
)
def test_and_so_is_each_of_its_own(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    words: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    test_a_mistake_with_a_trained_model_is_one_line_and_exit_code_2(
        run_folder, tmp_path, monkeypatch, capsys, module, words, environment, message
    )


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--device", "cuda:77"], {"CUDA_VISIBLE_DEVICES": ""}, "cuda"),
        (["--device", "no-such"], {}, "no-such"),
        (["--device", "mps"], {}, "sees no MPS device"),
        (["--device", "xla"], {}, "device `xla` is none that nanofast trains on"),
        (["--from", "somewhere"], {}, "--from is for midtrain and sft"),
        (["--warm-optimizer"], {}, "--warm-optimizer is for midtrain and sft"),
        (["--data=~/no such folder", "--tokenizer=r50k_base"], {"HOME": "{folder}"}, "`{folder}/no such folder`"),
        (["--n-embd=1073741824", "--n-head=1", "--dtype=auto"], {}, "out of memory"),
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
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    monkeypatch.setattr("nanofast.data.stdlib.documents", lambda: ["text"] * 1000)  # making the real ones takes long
    filled = [word.format(folder=tmp_path, file=file) for word in words]
    if "mps" in words and torch.backends.mps.is_available():
        pytest.skip("there is one here")
    place = ["--data", str(sample_corpus[0])] if "--tokenizer" in words else []
    # in this process: only what this test changes differs from one case to the next
    assert train([*SMALL, "--home", str(tmp_path / "home"), *place, *filled]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert message.format(file=file, folder=tmp_path) in told.err
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


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)  # as after `pip install --no-deps`
    assert train([*SMALL]) == 2
    assert capsys.readouterr().err == "error: `tyro` is needed and not installed; get it: pip install tyro\n"


def test_the_cursor_is_hidden_from_the_first_step_to_the_end_alone() -> None:
    """So that a Ctrl-C while things are set up leaves the terminal as it was."""
    terminal = io.StringIO()
    progress = Progress(2, console=Console(file=terminal, force_terminal=True, force_interactive=True))
    progress.say("settings")
    assert HIDE_CURSOR not in terminal.getvalue()
    progress.step(StepView(1, 2.0, 1.0, 1000.0, 0.0, 1.0))
    assert HIDE_CURSOR in terminal.getvalue()
    progress.close()
    progress.phase("saving")
    shown = terminal.getvalue()
    assert shown.rindex(SHOW_CURSOR.decode().strip()) > shown.rindex(HIDE_CURSOR)


def test_ctrl_c_while_the_report_is_made_is_one_line(
    sample_corpus: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nanofast.report.write_report", interrupted)
    data, tokenizer = sample_corpus
    place = ["--data", str(data), "--tokenizer", str(tokenizer), "--run", str(tmp_path / "run")]
    assert train([*SMALL, *place, "--num-iterations=1"]) == 130
    told = capsys.readouterr().err
    assert told.startswith(f"interrupted; the run is in {tmp_path / 'run'}")
    assert len(told.splitlines()) == 1
    assert read_log(tmp_path / "run")[-1]["reason"] == "finished"


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
