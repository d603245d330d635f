"""Hugging Face Trainer: batches of raw text, whose position is in the Trainer's checkpoints.

python examples/huggingface_trainer.py FOLDER_OF_PARQUET RUN_FOLDER [STEPS]

The loader stands in for the Trainer's own DataLoader, which would skip to its position by reading everything again.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import nanofast

B, T, STATE = 4, 64, "nanofast.json"


class Batches:
    """What a model of transformers takes: inputs by name. Targets are shifted already, so they are no `labels`."""

    def __init__(self, loader: nanofast.TokenLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for inputs, targets in self.loader:
            yield {"input_ids": inputs, "targets": targets}


class TextTrainer(Trainer):
    """A Trainer over a TokenLoader."""

    def __init__(self, loader: nanofast.TokenLoader, **options: Any) -> None:
        super().__init__(**options)
        self.loader = loader

    def get_train_dataloader(self) -> Any:
        """Batches as they come, on the device already."""
        return Batches(self.loader)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        """Cross entropy of the targets, -1 left out."""
        logits = model(input_ids=inputs["input_ids"].long()).logits
        return F.cross_entropy(logits.flatten(0, 1), inputs["targets"].flatten(), ignore_index=-1)


class SaveLoader(TrainerCallback):
    """Puts the loader's state beside the Trainer's own."""

    def __init__(self, loader: nanofast.TokenLoader) -> None:
        self.loader = loader

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Called when a checkpoint's folder is written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / STATE).write_text(json.dumps(self.loader.state_dict()), encoding="utf-8")


def main(data: str, folder: str, steps: int = 4) -> list[float]:
    """Train for some steps more; the loss of each."""
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=tokenizer.vocab_size, n_positions=T, n_embd=32, n_layer=1, n_head=2)
    last = get_last_checkpoint(folder) if Path(folder).exists() else None
    done = 0 if last is None else int(last.rpartition("-")[2])
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=done + steps,
        logging_steps=1,
        save_steps=steps,
        ignore_data_skip=True,  # the loader is where it was: nothing is to be read again
        disable_tqdm=True,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
    )
    with nanofast.TokenLoader(data, tokenizer, B, T, device=arguments.device) as loader:
        if last is not None:
            loader.load_state_dict(json.loads((Path(last) / STATE).read_text(encoding="utf-8")))
        model = GPT2LMHeadModel(shape)
        trainer = TextTrainer(loader, model=model, args=arguments, callbacks=[SaveLoader(loader)])
        trainer.train(resume_from_checkpoint=last)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print(main(*sys.argv[1:3], *map(int, sys.argv[3:4])))
