"""The folder of a run, taken so that no other run can have it.

config, run_dir = open_run(config, home, world, resumed=None)      # a collective
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
from pathlib import Path

from nanofast import checkpoint
from nanofast.config import Config, ConfigError
from nanofast.distributed import World, object_from_main
from nanofast.resume import Found, run_folder
from nanofast.runlog import FILE_NAME as LOG_NAME


def claim_folder(config: Config, home: Path, resumed: Found | None) -> Path:
    """The run's folder, taken so that no other run can have it. A used one is refused unless this run goes on in it."""
    if config.run.run is None:
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(1):  # two runs may begin in the same second
            run_dir = run_folder(f"d{config.model.depth}-{stamp}" + (f"-{number}" if number > 1 else ""), home)
            with contextlib.suppress(FileExistsError):
                run_dir.mkdir(parents=True)
                return run_dir
    assert config.run.run is not None
    run_dir = run_folder(config.run.run, home)
    checkpoints = run_dir / "checkpoints"
    if resumed is not None and resumed.path.parent == checkpoints:
        return run_dir
    steps = [checkpoint.step_of(path) for path in checkpoints.glob("step_*") if checkpoint.is_checkpoint_name(path)]
    # `--resume auto` has looked for a checkpoint and found none: a run that was stopped before its first begins anew
    begun = (run_dir / LOG_NAME).exists() and config.run.resume != "auto"
    if steps or begun:
        where = f"its newest checkpoint is of step {max(steps)}" if steps else "it holds a log"
        raise ConfigError(
            f"run folder `{run_dir}` is in use: {where}; pass --resume auto to go on with it, or another --run"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def open_run(config: Config, home: Path, world: World, resumed: Found | None) -> tuple[Config, Path]:
    """Take the run's folder on the main rank; every rank has it, or the reason why not."""
    found: Path | Exception | None = None
    if world.is_main:
        try:
            found = claim_folder(config, home, resumed)
        except (ConfigError, OSError) as error:
            found = error
    found = object_from_main(found)
    if isinstance(found, Exception):
        raise found
    assert found is not None
    run = dataclasses.replace(config.run, run=str(found), resume=None, config=None)
    return dataclasses.replace(config, run=run), found
