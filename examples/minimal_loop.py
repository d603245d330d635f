"""The whole loop in plain torch: parquet text in, a trained (very small) language model out.

python examples/minimal_loop.py FOLDER_OF_PARQUET [STEPS]        # without a folder: the sample corpus
"""

import sys  # for the two words of the command line

import torch  # the model, its gradients and the optimizer
import torch.nn.functional as F  # the loss

import nanofast  # the tokenizer and the loader
from nanofast.data.sample import ensure_sample  # a small corpus and its vocabulary, from this Python's own sources
from nanofast.home import home_folder  # where they are kept: NANOFAST_HOME, else ~/.cache/nanofast

B, T, ACCUMULATION = 8, 64, 4  # rows of a micro-batch, tokens of a row, micro-batches of a step


def main(data: str | None = None, steps: int = 20) -> list[float]:
    """Train for some steps; the loss of each."""
    sample, vocabulary = ensure_sample(home_folder(None))  # made once; your data is read with its vocabulary too
    tokenizer = nanofast.Tokenizer.from_file(vocabulary)  # or .from_name("cl100k_base"), .from_tiktoken(encoding)

    torch.manual_seed(0)  # the same weights each time; the loader's stream is the same by itself
    model = torch.nn.Sequential(  # any model will do: this one guesses a token from the one before it
        torch.nn.Embedding(tokenizer.vocab_size, 128),  # a vector for each token
        torch.nn.Linear(128, tokenizer.vocab_size),  # and from it a score for each token that may come next
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)  # a high rate, as so small a model bears it

    losses = []  # of each step, for whoever called
    # Rust threads read, tokenize and pack ahead of us; `with` stops them when we leave, however we leave.
    with nanofast.TokenLoader(data or sample, tokenizer, batch_size=B, sequence_length=T, split="train") as loader:
        for step in range(steps):  # the outer loop: one optimizer step
            loss_sum, num_targets = 0.0, 0  # over all micro-batches of the step
            for _ in range(ACCUMULATION):  # the inner loop: micro-batches whose gradients add up
                inputs, targets = next(loader)  # [B, T] each; it was prefetched, so this hardly waits
                logits = model(inputs)  # [B, T, vocabulary]
                # A sum, not a mean: every target of the step weighs the same. -1 marks targets that are not learned.
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
                loss.backward()  # adds to the gradients that the micro-batches before have left
                loss_sum += loss.item()  # a plain number, so that the graph behind the loss can go
                num_targets += int((targets >= 0).sum())  # as many as the sum was taken over
            for parameter in model.parameters():  # the sum becomes the mean over all targets of the step
                parameter.grad /= max(num_targets, 1)  # a step of masked targets alone divides by one
            optimizer.step()  # move the weights
            optimizer.zero_grad()  # and begin the next sum
            losses.append(loss_sum / max(num_targets, 1))  # nats per target
            print(f"step {step + 1}: loss {losses[-1]:.3f}")  # falls from ln(vocabulary size)
        loader.state_dict()  # save this with your checkpoint: load_state_dict continues with the very next batch
    return losses  # a test looks at them


if __name__ == "__main__":  # only when run, not when imported
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))  # FOLDER_OF_PARQUET, then STEPS
