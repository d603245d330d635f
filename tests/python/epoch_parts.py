"""One rank of finite epochs with real collectives; see test_epochs.py. python epoch_parts.py FOLDER JOBS

After each batch all ranks reduce a number, as a training step does: a rank with a batch more would wait for ever.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import nanofast
from chat_twin import nanochat_tokenizer
from nanofast.distributed import World, connect, disconnect, leave
from resumed import digest


def iterate(world: World, job: dict[str, Any]) -> dict[str, Any]:
    """All batches of a loader as this rank sees them, in step with the other ranks."""
    if world.rank == job.get("late_rank"):
        time.sleep(1.0)
    kind: type[nanofast.TokenLoader] = nanofast.ChatLoader if job.get("chat") else nanofast.TokenLoader
    tokenizer = nanochat_tokenizer() if job.get("chat") else nanofast.Tokenizer.from_name("r50k_base")
    with kind(job["data"], tokenizer, num_threads=1, **job["settings"]) as loader:
        names = []
        for inputs, targets in loader:
            total = torch.ones(1)
            dist.all_reduce(total)
            assert int(total) == world.world_size
            names.append(digest((inputs, targets)))
            if len(names) == job.get("restore_after"):
                state = loader.state_dict()
                for _ in range(3):
                    next(loader)
                    dist.all_reduce(total)
                loader.load_state_dict(state)
        assert next(loader, None) is None
        return {"names": names, "ledger": loader.metrics()["ledger"]}


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    world = connect("cpu")
    found = [iterate(world, job) for job in jobs]
    (folder / f"rank_{world.rank}.json").write_text(json.dumps(found))
    disconnect()
    leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
