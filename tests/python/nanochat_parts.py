"""One rank of nanochat's loop over gloo; see test_nanochat.py.

    python nanochat_parts.py FOLDER DATA TOKENIZER first|again

`first` reads 14 batches and rank 0 alone saves the state that came with the 7th, as nanochat's checkpoints do; `again`
goes on from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nanofast
from nanofast.compat.nanochat import tokenizing_distributed_data_loader_with_state_bos_bestfit as loader
from nanofast.distributed import connect, disconnect, leave
from resumed import digest


def main(folder: Path, data: str, tokenizer: str, part: str) -> None:
    world = connect("cpu")
    state = json.loads((folder / "state.json").read_text()) if part == "again" else None
    batches = loader(
        nanofast.Tokenizer.from_file(tokenizer), 2, 24, "train", device="cpu", resume_state_dict=state, data=data
    )
    names = []
    for number in range(14):
        inputs, targets, found = next(batches)
        names.append(digest((inputs, targets)))
        if part == "first" and number == 6 and world.is_main:
            (folder / "state.json").write_text(json.dumps(found))
    (folder / f"{part}_{world.rank}.json").write_text(json.dumps(names))
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    leave(0)
