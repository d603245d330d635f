"""Checkpoints that are whole or not there: one folder each, written aside, synced to disk, renamed into place.

    checkpoints/step_00000500/
      manifest.json           format version, and of each other file its size and SHA-256
      model.safetensors       weights by parameter name
      optimizer.safetensors   optimizer state by parameter name, and `rng/…`: torch's random states
      state.json              step, configuration, dtype, versions, …
      loader.json             the loader's state, one entry a rank
      shards/                 with `--checkpoint-format sharded`, in place of the tensors (sharded.py)

No pickle anywhere but in shards/, which is for checkpoints that you trust. A folder that is not complete is never
chosen: `newest_complete` checks sizes and hashes, newest first, and says what it passed over and why. Nothing here
knows what the tensors and values mean.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from nanofast.config import ConfigError
from nanofast.data.aside import flush, sha256_of

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ASIDE_PREFIX = ".writing-"
ABANDONED_PREFIX = "abandoned-"


class CheckpointError(ConfigError):
    """A checkpoint that cannot be used. The message names the file and what is wrong with it."""


@dataclass
class Snapshot:
    """What a checkpoint holds, file by file: tensors become NAME.safetensors, values NAME.json.

    `shards` is the folder that holds the tensors instead where each rank wrote its own (sharded.py).
    """

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    shards: Path | None = None


def folder_name(step: int) -> str:
    """The folder of a step's checkpoint; names sort as steps do."""
    return f"step_{step:08d}"


def step_of(folder: Path) -> int:
    """The step in a folder's name."""
    return int(folder.name.removeprefix("step_"))


def begin(checkpoints: Path, step: int) -> Path:
    """An empty folder to write a checkpoint into; `finish` gives it its name."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    for litter in checkpoints.glob(f"{ASIDE_PREFIX}*"):  # left by a process that was killed while writing
        shutil.rmtree(litter, ignore_errors=True)
    aside = checkpoints / f"{ASIDE_PREFIX}{folder_name(step)}"
    aside.mkdir()
    return aside


def finish(snapshot: Snapshot, aside: Path, step: int) -> Path:
    """Write a snapshot beside what lies in the folder, then a manifest of all of it; rename the folder into place."""
    target = aside.with_name(folder_name(step))
    try:
        for name, tensors in snapshot.tensors.items():
            _save_tensors(
                {key: tensor.detach().contiguous() for key, tensor in tensors.items()}, aside / f"{name}.safetensors"
            )
        for name, value in snapshot.values.items():
            (aside / f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        entries = {
            file.relative_to(aside).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in files
        }
        manifest = {"format": "nanofast checkpoint", "format_version": FORMAT_VERSION, "step": step, "files": entries}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*files, aside / MANIFEST, *{file.parent for file in files}, aside]:
            flush(path)
        if target.exists():  # the same step again: a resumed run reached it once more
            shutil.rmtree(target)
        aside.rename(target)
        flush(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def save(snapshot: Snapshot, checkpoints: Path, step: int) -> Path:
    """Write a checkpoint; it appears under its name complete or not at all. Raises OSError when the disk says no."""
    return finish(snapshot, begin(checkpoints, step), step)


def retain(checkpoints: Path, newest: int, keep_last: int, keep_every: int) -> list[Path]:
    """Delete all but the last `keep_last` checkpoints (0: keep all) and multiples of `keep_every`; what is gone.

    Counted back from step `newest`, the one just written. Later ones belong to another course of the run: they are
    neither counted nor touched.
    """
    if keep_last == 0:
        return []
    folders = sorted(filter(is_checkpoint_name, checkpoints.iterdir()), key=step_of)
    folders = [folder for folder in folders if step_of(folder) <= newest]
    gone = [f for f in folders[:-keep_last] if not (keep_every and step_of(f) % keep_every == 0)]
    for folder in gone:
        # the manifest first: a half-deleted folder must not look complete
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def set_aside_after(checkpoints: Path, step: int) -> list[Path]:
    """Rename the checkpoints of later steps to `abandoned-step_…`: a run that goes on from `step` writes its own.

    Left under their names, `newest_complete` would choose them before all that the resumed run has yet to write.
    """
    moved = []
    for folder in sorted(filter(is_checkpoint_name, checkpoints.iterdir()), key=step_of):
        if step_of(folder) <= step:
            continue
        target = checkpoints / f"{ABANDONED_PREFIX}{folder.name}"
        if target.exists():  # of an earlier return to an older step; one course of the run is kept
            shutil.rmtree(target)
        moved.append(folder.rename(target))
    return moved


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except Exception as error:  # safetensors wraps a full disk in an error of its own
        raise OSError(f"could not write `{path}`: {error}") from error


def check(folder: Path) -> None:
    """Raise CheckpointError unless the folder is exactly what its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["format_version"], manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"`{folder}` has no {MANIFEST}: it is no complete checkpoint") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"`{folder / MANIFEST}` does not parse: it is no complete checkpoint") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"`{folder}` has format version {version}; this nanofast reads version {FORMAT_VERSION}")
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"`{path}` is missing")
        if path.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"`{path}` has {path.stat().st_size} bytes; its manifest says {entry['bytes']}")
        if sha256_of(path) != entry["sha256"]:
            raise CheckpointError(f"`{path}` has other content than its manifest's SHA-256 says")


def load(folder: Path) -> Snapshot:
    """Check a checkpoint and read it, tensors onto the CPU."""
    check(folder)
    snapshot = Snapshot()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            snapshot.tensors[path.stem] = load_file(path)
        elif path.suffix == ".json" and path.name != MANIFEST:
            snapshot.values[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        elif path.is_dir():
            snapshot.shards = path
    return snapshot


def is_checkpoint_name(path: Path) -> bool:
    """True for folders that are named as checkpoints are."""
    return path.is_dir() and path.name.startswith("step_") and path.name.removeprefix("step_").isdigit()


def newest_complete(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that was passed over, saying why."""
    if not checkpoints.is_dir():
        return None, []
    skipped = [f"`{path}` was never finished" for path in sorted(checkpoints.glob(f"{ASIDE_PREFIX}*"))]
    for folder in sorted(filter(is_checkpoint_name, checkpoints.iterdir()), key=step_of, reverse=True):
        try:
            check(folder)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        return folder, skipped
    return None, skipped
