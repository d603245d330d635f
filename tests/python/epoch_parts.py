"""One rank of finite epochs with real collectives; see test_epochs.py. python epoch_parts.py FOLDER JOB

After each batch all ranks reduce a number, as a training step does: a rank with a batch more would wait for ever.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import nanofast
from chat_twin import nanochat_tokenizer
from nanofast.distributed import connect, disconnect
from resumed import digest


def main(folder: Path, job: dict[str, object]) -> None:
    world = connect("cpu")
    if world.rank == job.get("late_rank"):
        time.sleep(1.0)
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    settings = dict(job["settings"])  # type: ignore[call-overload]
    kind: type[nanofast.TokenLoader] = nanofast.TokenLoader
    if job.get("chat"):
        kind, tokenizer = nanofast.ChatLoader, nanochat_tokenizer()
    loader = kind(job["data"], tokenizer, num_threads=1, **settings)  # type: ignore[arg-type]
    names = []
    restores = job.get("restore_after")
    for inputs, targets in loader:
        total = torch.ones(1)
        dist.all_reduce(total)
        assert int(total) == world.world_size
        names.append(digest((inputs, targets)))
        if len(names) == restores:
            state = loader.state_dict()
            for _ in range(3):
                next(loader)
                dist.all_reduce(total)
            loader.load_state_dict(state)
    assert next(loader, None) is None
    (folder / f"rank_{world.rank}.json").write_text(json.dumps({"names": names, "ledger": loader.metrics()["ledger"]}))
    loader.close()
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
