"""One rank that gathers states; see test_gathered.py. python gathered.py FOLDER DATA

Reads some rounds, gathers the state, saves it with torch.distributed.checkpoint, and notes which batches come next.
With a checkpoint in FOLDER it goes on from that instead.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed.checkpoint as dcp

import nanofast
from nanofast.distributed import connect, disconnect, gather_state, leave
from resumed import following

ROUNDS = 5


def main(folder: Path, data: str) -> None:
    world = connect("cpu")
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=4, shuffle=True, num_threads=1) as loader:
        turns = loader.lanes // world.world_size
        if (folder / "checkpoint").exists():
            state = {"loader": gather_state(loader)}
            dcp.load(state, checkpoint_id=str(folder / "checkpoint"))
            loader.load_state_dict(state["loader"])
            name = "then"
        else:
            following(loader, ROUNDS * turns)
            whole = gather_state(loader)
            dcp.save({"loader": whole}, checkpoint_id=str(folder / "checkpoint"))
            (folder / f"state_{world.rank}.json").write_text(json.dumps(whole))
            name = "first"
        (folder / f"{name}_{world.rank}.json").write_text(json.dumps(following(loader, 4 * turns)))
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    leave(0)
