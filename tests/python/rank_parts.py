"""One rank of a tiny run; see test_distributed.py. Leaves a digest of its weights.

python rank_parts.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from nanofast.distributed import connect
from trainer_parts import tiny_trainer


def main(folder: Path) -> None:
    """Train, validate, write down what this rank ended with."""
    world = connect("cpu")
    trainer = tiny_trainer(folder / "run", device_batch_size=4 // world.world_size, masked_every=3)
    trainer.fit()
    trainer.validate()
    digest = hashlib.sha256()
    for parameter in trainer.model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    assert trainer.last_validation is not None
    found = {"weights": digest.hexdigest(), "validation": trainer.last_validation.bpb}
    (folder / f"weights_{world.rank}.json").write_text(json.dumps(found))
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
