"""PyTorch Lightning: a loader in a data module, whose position is in Lightning's checkpoints.

python examples/lightning_loop.py FOLDER_OF_PARQUET RUN_FOLDER [STEPS]

Lightning asks for a batch ahead of the one that it trains on. So each batch brings the state that belongs to it, and
the state of the batch trained last is what is saved.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F

import nanofast

B, T = 4, 64


class State:
    """Of one batch; an object of its own, so that Lightning does not look for tensors in it."""

    def __init__(self, loader: nanofast.TokenLoader) -> None:
        self.value = loader.state_dict()


class Text(lightning.LightningDataModule):
    """Batches of parquet text."""

    def __init__(self, data: str, tokenizer: nanofast.Tokenizer) -> None:
        super().__init__()
        self.loader = nanofast.TokenLoader(data, tokenizer, B, T)
        self.trained: State | None = None

    def train_dataloader(self) -> "Text":
        """Itself: an iterable is all that Lightning needs."""
        return self

    def __iter__(self) -> Iterator[Any]:
        for inputs, targets in self.loader:
            yield inputs, targets, State(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """What Lightning saves."""
        return {} if self.trained is None else self.trained.value

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What Lightning gives back."""
        if state:
            self.loader.load_state_dict(state)


class Model(lightning.LightningModule):
    """Guesses a token from the one before it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Embedding(vocab_size, 32), torch.nn.Linear(32, vocab_size))
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """The loss of one batch."""
        inputs, targets, state = batch
        self.trainer.datamodule.trained = state
        loss = F.cross_entropy(self.layers(inputs).flatten(0, 1), targets.flatten(), ignore_index=-1)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=1.0)


def main(data: str, folder: str, steps: int = 5) -> list[float]:
    """Train for some steps more; the loss of each."""
    lightning.seed_everything(0, verbose=False)
    last = Path(folder) / "last.ckpt"
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    text, model = Text(data, tokenizer), Model(tokenizer.vocab_size)
    done = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    trainer = lightning.Trainer(
        max_steps=done + steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=text, ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(last)
    text.loader.close()
    return model.losses


if __name__ == "__main__":
    print(main(*sys.argv[1:3], *map(int, sys.argv[3:4])))
