"""JAX: batches as numpy arrays, no torch needed.

python examples/jax_loop.py FOLDER_OF_PARQUET [STEPS]
"""

import sys

import jax
import jax.numpy as jnp

import nanofast

B, T, WIDTH = 4, 64, 32


def loss_of(weights: dict[str, jax.Array], inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross entropy of the targets that are learned."""
    scores = jax.nn.log_softmax(weights["embedding"][inputs] @ weights["head"])
    picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    learned = targets >= 0
    return -(picked * learned).sum() / jnp.maximum(learned.sum(), 1)


@jax.jit
def step(
    weights: dict[str, jax.Array], inputs: jax.Array, targets: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """One step of plain descent."""
    loss, gradients = jax.value_and_grad(loss_of)(weights, inputs, targets)
    return jax.tree.map(lambda weight, gradient: weight - gradient, weights, gradients), loss


def main(data: str, steps: int = 8, state: dict | None = None) -> tuple[list[float], dict]:
    """Train for some steps from a loader's state on; the losses, and the state to go on from."""
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    keys = jax.random.split(jax.random.key(0))
    weights = {
        "embedding": 0.02 * jax.random.normal(keys[0], (tokenizer.vocab_size, WIDTH)),
        "head": 0.02 * jax.random.normal(keys[1], (WIDTH, tokenizer.vocab_size)),
    }
    losses = []
    with nanofast.TokenLoader(data, tokenizer, B, T) as loader:
        if state is not None:
            loader.load_state_dict(state)
        batches = loader.numpy()  # int32 and int64 [B, T], the caller's own
        for _ in range(steps):
            inputs, targets = next(batches)
            weights, loss = step(weights, inputs, targets.astype("int32"))
            losses.append(float(loss))
        return losses, loader.state_dict()


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:3]))[0])
