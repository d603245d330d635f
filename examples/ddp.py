"""Data parallel training under torchrun, with a checkpoint that any number of processes can take up.

torchrun --nproc-per-node=2 examples/ddp.py FOLDER_OF_PARQUET CHECKPOINT.pt [STEPS]

Run it again with another --nproc-per-node that divides 8, and it goes on with the very next batches.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import nanofast
from nanofast.distributed import gather_state

B, T, LANES = 4, 64, 8  # a step is a round: one batch of each of the 8 lanes, whatever the number of processes


def main(data: str, checkpoint: str, steps: int = 5) -> None:
    """Train for some steps more."""
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo"
    )  # before the loader, which asks it who we are
    device = torch.device("cuda", dist.get_rank()) if torch.cuda.is_available() else torch.device("cpu")
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    torch.manual_seed(0)
    layers = torch.nn.Embedding(tokenizer.vocab_size, 32), torch.nn.Linear(32, tokenizer.vocab_size)
    model = DistributedDataParallel(torch.nn.Sequential(*layers).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    with nanofast.TokenLoader(
        data, tokenizer, B, T, lanes=LANES, device=device
    ) as loader:  # rank and size: the group's
        if Path(checkpoint).exists():
            saved = torch.load(checkpoint, map_location=device, weights_only=True)
            model.module.load_state_dict(saved["model"])
            loader.load_state_dict(saved["loader"])  # the state of all ranks; each takes its own lanes
        for _ in range(steps):
            batches = LANES // dist.get_world_size()
            for index in range(batches):
                inputs, targets = next(loader)
                model.require_backward_grad_sync = index == batches - 1  # ranks talk once a step
                loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=-1)
                (loss / batches).backward()
            optimizer.step()
            optimizer.zero_grad()
            if dist.get_rank() == 0:
                print(f"loss {loss.item():.4f}, batches seen {loader.metrics()['round'] * LANES}", flush=True)
        state = gather_state(loader)  # all ranks together
        if dist.get_rank() == 0:
            torch.save({"model": model.module.state_dict(), "loader": state}, checkpoint)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
