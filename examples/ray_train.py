"""Ray Train: workers of one loader, with checkpoints that any number of workers can take up.

python examples/ray_train.py FOLDER_OF_PARQUET FOLDER_FOR_RESULTS [STEPS [WORKERS]]

Run it again, with another number of workers that divides 8 if you like, and it goes on with the very next batches.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.nn.functional as F
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

import nanofast
from nanofast.distributed import gather_state

B, T, LANES = 4, 64, 8  # a step is a round: one batch of each of the 8 lanes, whatever the number of workers


def train(config: dict[str, Any]) -> None:
    """What each worker does."""
    context = ray.train.get_context()
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    torch.manual_seed(0)
    layers = torch.nn.Embedding(tokenizer.vocab_size, 32), torch.nn.Linear(32, tokenizer.vocab_size)
    model = prepare_model(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plain = getattr(model, "module", model)  # of one worker Ray makes no DDP
    device = ray.train.torch.get_device()
    with nanofast.TokenLoader(
        config["data"], tokenizer, B, T, lanes=LANES, device=device
    ) as loader:  # rank and size: the group's
        if found := ray.train.get_checkpoint():
            with found.as_directory() as folder:
                saved = torch.load(Path(folder, "checkpoint.pt"), map_location=device, weights_only=True)
            plain.load_state_dict(saved["model"])
            loader.load_state_dict(saved["loader"])  # the state of all workers; each takes its own lanes
        for _ in range(config["steps"]):
            losses = []
            for _ in range(LANES // context.get_world_size()):
                inputs, targets = next(loader)
                loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=-1)
                loss.backward()
                losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
            figures = {"loss": sum(losses) / len(losses), "batches_seen": loader.metrics()["round"] * LANES}
            state = gather_state(loader)  # all workers together
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = None
                if context.get_world_rank() == 0:
                    torch.save({"model": plain.state_dict(), "loader": state}, Path(folder, "checkpoint.pt"))
                    checkpoint = Checkpoint.from_directory(folder)
                ray.train.report(figures, checkpoint=checkpoint)


def main(data: str, results: str, steps: int = 5, num_workers: int = 2) -> dict[str, Any]:
    """Train for some steps more; the last step's figures."""
    trainer = TorchTrainer(
        train,
        train_loop_config={"data": str(Path(data).resolve()), "steps": steps},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=torch.cuda.is_available()),
        # The name of a run that is there already: Ray hands its newest checkpoint to the workers.
        run_config=RunConfig(name="run", storage_path=str(Path(results).resolve())),
    )
    figures: dict[str, Any] = trainer.fit().metrics
    return figures


if __name__ == "__main__":
    print(main(*sys.argv[1:3], *map(int, sys.argv[3:5])))
