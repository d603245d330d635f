"""The whole loop in plain torch: parquet text in, a trained (very small) language model out.

python examples/minimal_loop.py FOLDER_OF_PARQUET [STEPS]        # without a folder: the sample corpus
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import nanofast
from nanofast.data.sample import ensure_sample

B, T, ACCUMULATION = 8, 64, 4  # rows of a micro-batch, tokens of a row, micro-batches of a step


def main(data: str | None = None, steps: int = 20) -> list[float]:
    """Train for some steps; the loss of each."""
    home = Path("~/.cache/nanofast").expanduser()
    sample, vocabulary = ensure_sample(home)  # made once from this Python's own sources; your data needs no such line
    tokenizer = nanofast.Tokenizer.from_file(vocabulary)  # or .from_name("cl100k_base"), .from_tiktoken(encoding)

    torch.manual_seed(0)  # the same weights each time; the loader's stream is the same by itself
    model = torch.nn.Sequential(  # any model will do: this one guesses a token from the one before it
        torch.nn.Embedding(tokenizer.vocab_size, 128),
        torch.nn.Linear(128, tokenizer.vocab_size),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    losses = []
    # Rust threads read, tokenize and pack ahead of us; `with` stops them when we leave, however we leave.
    with nanofast.TokenLoader(data or sample, tokenizer, batch_size=B, sequence_length=T, split="train") as loader:
        for step in range(steps):  # the outer loop: one optimizer step
            loss_sum, num_targets = 0.0, 0
            for _ in range(ACCUMULATION):  # the inner loop: micro-batches whose gradients add up
                inputs, targets = next(loader)  # [B, T] each; it was prefetched, so this hardly waits
                logits = model(inputs)  # [B, T, vocabulary]
                # A sum, not a mean: every target of the step weighs the same. -1 marks targets that are not learned.
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
                loss.backward()
                loss_sum += loss.item()
                num_targets += int((targets >= 0).sum())
            for parameter in model.parameters():  # the sum becomes the mean over all targets of the step
                parameter.grad /= max(num_targets, 1)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss_sum / max(num_targets, 1))
            print(f"step {step + 1}: loss {losses[-1]:.3f}")
        loader.state_dict()  # save this with your checkpoint: load_state_dict continues with the very next batch
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
