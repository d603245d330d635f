"""Which checkpoint to continue: `--resume auto`, a run folder or a checkpoint folder; and what a resumed run may not
change.

Only complete checkpoints count; what was passed over is told, with the reason.

    found = find("auto", run=None, home=Path("~/.cache/nanofast"))
    found.path, found.config, found.skipped
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nanofast import checkpoint
from nanofast.config import Config, ConfigError, RunSettings, from_dict
from nanofast.home import home_folder
from nanofast.remote import require_local

# Beside a run's checkpoints, so that its folder is all that is needed to use the model.
TOKENIZER_FILE = "tokenizer.json"
# Settings of the model that may differ from the checkpoint's: weights do not depend on them.
FREE = {"sequence_length"}


@dataclass(frozen=True)
class Found:
    """A checkpoint to continue, its configuration, and a line for each newer one that was passed over."""

    path: Path
    config: Config
    skipped: list[str]


def run_folder(run: str, home: Path) -> Path:
    """A run's folder: a bare name lives under HOME/runs, anything with a separator is a path."""
    require_local("run", run)
    return Path(run).expanduser().absolute() if os.sep in run or run.startswith(".") else home / "runs" / run


def find_start(stage: str, settings: RunSettings) -> tuple[Found, Path]:
    """The checkpoint that a stage begins from, and the tokenizer of its run."""
    if settings.from_run is None:
        raise ConfigError(f"{stage} begins from a checkpoint; pass --from RUN_OR_CHECKPOINT (or auto for the last run)")
    found = require(settings.from_run, settings.home, "pretrain first")
    return found, tokenizer_of(found)


def require(name: str, home: str | None, remedy: str = "train first, or name a run folder") -> Found:
    """The newest complete checkpoint of a run (or `auto`: of the run written to last), or a checkpoint itself."""
    folder = home_folder(home)
    found = find(name, None, folder)
    if found is None:
        raise ConfigError(f"no checkpoint under `{folder / 'runs'}`; {remedy}")
    return found


def tokenizer_of(found: Found) -> Path:
    """The tokenizer of a checkpoint's run."""
    tokenizer = found.path.parent.parent / TOKENIZER_FILE
    if not tokenizer.is_file():
        raise ConfigError(f"no tokenizer `{tokenizer}`; it lies in the run folder, two levels above the checkpoint")
    return tokenizer


def find_resumed(settings: RunSettings) -> Found | None:
    """The checkpoint that these settings go on from; None where they begin anew."""
    return find(settings.resume, settings.run, home_folder(settings.home)) if settings.resume is not None else None


def find(resume: str, run: str | None, home: Path) -> Found | None:
    """The checkpoint that `--resume` means; None where `auto` finds nothing to continue. A path must hold one."""
    if resume == "auto":
        if run is not None:
            folders = [run_folder(run, home)]
        else:  # the run that was written to last
            folders = sorted((home / "runs").glob("*/checkpoints"), key=lambda f: f.stat().st_mtime, reverse=True)
            folders = [folder.parent for folder in folders]
    else:
        path = Path(resume).expanduser().absolute()
        if checkpoint.is_checkpoint_name(path):
            checkpoint.check(path)
            return Found(path, _config_of(path), [])
        if not path.is_dir() and run_folder(resume, home).is_dir():
            path = run_folder(resume, home)
        folders = [path]
    skipped: list[str] = []
    for folder in folders:
        newest, reasons = checkpoint.newest_complete(folder / "checkpoints")
        skipped += reasons
        if newest is not None:
            return Found(newest, _config_of(newest), skipped)
    if resume != "auto":
        why = "; ".join(skipped) or "it has no folder checkpoints/step_…"
        raise ConfigError(f"nothing to resume in `{resume}`: {why}; give a run folder, a checkpoint folder or auto")
    if skipped:
        raise ConfigError(f"no complete checkpoint to resume: {'; '.join(skipped)}; leave out --resume to begin anew")
    return None


def _config_of(path: Path) -> Config:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    stored = from_dict(state["config"])
    return dataclasses.replace(stored, run=dataclasses.replace(stored.run, run=str(path.parent.parent), resume=None))


def check_same_model(stored: Config, config: Config) -> None:
    """Refuse to resume into another model, naming the setting and both values."""
    for field in dataclasses.fields(stored.model):
        old, wanted = getattr(stored.model, field.name), getattr(config.model, field.name)
        if old != wanted and field.name not in FREE:
            raise ConfigError(
                f"{field.name} is {old} in the checkpoint and {wanted} here; a resumed run keeps its model; "
                "leave the flag out, or begin a new run"
            )
