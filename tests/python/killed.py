"""A consumer to be killed: reads batches, notes each, saves its state behind each. python killed.py FOLDER DATA COUNT

`FOLDER/seen` gets a line `number name` a batch; `FOLDER/state` is replaced whole. While it is being written, standard
output says so, so that a kill can be aimed at it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import nanofast
from resumed import digest

SETTINGS = {"batch_size": 2, "sequence_length": 32, "lanes": 2, "shuffle": True, "num_threads": 2}


def main(folder: Path, data: str, count: int) -> None:
    loader = nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), **SETTINGS)
    number, state = 0, folder / "state"
    if state.exists():
        saved = json.loads(state.read_text())
        number = saved["number"]
        loader.load_state_dict(saved["loader"])
    batches = loader.numpy()
    with (folder / "seen").open("a") as seen:
        while number < count:
            seen.write(f"{number} {digest(next(batches))}\n")
            seen.flush()
            number += 1
            text = json.dumps({"number": number, "loader": loader.state_dict()})
            with (folder / "state.partial").open("w") as file:
                os.write(1, b"writing\n")
                for start in range(0, len(text), 1024):
                    file.write(text[start : start + 1024])
                    file.flush()
                    time.sleep(0.0002)
            (folder / "state.partial").replace(state)
            os.write(1, b"written\n")
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
