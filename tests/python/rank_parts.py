"""One rank of a tiny run; see test_distributed.py. Leaves a digest of its weights, and what was sent in a step.

python rank_parts.py FOLDER [poisoned=STEP] [SETTING=VALUE …]        # settings of the run, like parallel=fsdp
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from torch.distributed.tensor.debug import CommDebugMode

from nanofast.distributed import connect, leave
from nanofast.fsdp import whole_weights
from trainer_parts import poison, tiny_trainer


def main(folder: Path, poisoned: str = "", **settings: str) -> None:
    """Train, validate, sample, write down what this rank ended with. One rank's gradients are spoiled in a step."""
    world = connect("cpu")
    trainer = tiny_trainer(
        folder / "run", device_batch_size=4 // world.world_size, masked_every=3, save_every=3, **settings
    )
    if poisoned and world.rank == 1:
        poison(trainer, int(poisoned))
    with CommDebugMode() as sent:
        trainer.train_step()
    counts = {str(operation).rpartition(".")[2]: count for operation, count in sent.get_comm_counts().items()}
    trainer.fit()
    trainer.validate()
    trainer.sample()
    digest = hashlib.sha256()
    for tensor in whole_weights(trainer.model).values():
        digest.update(tensor.numpy().tobytes())
    assert trainer.last_validation is not None
    found = {"weights": digest.hexdigest(), "validation": trainer.last_validation.bpb, "sent": counts}
    (folder / f"weights_{world.rank}.json").write_text(json.dumps(found))
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), **dict(word.split("=") for word in sys.argv[2:]))  # type: ignore[arg-type]
    leave(0)
