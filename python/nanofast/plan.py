"""What a run will be, before anything runs: its steps from whichever horizon was given, its size, memory and time.

config = with_horizon(config, shape_counts)
for line in describe(plan): print(line)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nanofast.config import Config
from nanofast.derive import DEFAULT_ITERATIONS, DEFAULT_TOKENS_PER_PARAMETER
from nanofast.progress import duration

# What training reached of the matrix product rate, as a first guess of its time: 0.42 in bfloat16 eager on a 2-core Zen
# 4 server VM at the default size. Only the estimate that is printed depends on it.
USUAL_EFFICIENCY = 0.4
# Numbers kept for the backward pass, by counting what model.py saves: for each token and layer in units of the width,
# and for each token of the logits.
KEPT_WIDTHS = 26
KEPT_LOGIT_BYTES = 18


def with_horizon(config: Config, matrix_parameters: int, flops_per_token: int) -> Config:
    """The configuration with `num_iterations` filled in. `matrix_parameters` counts the weights of matrix products."""
    schedule = config.schedule
    if schedule.num_iterations is not None:
        return config
    assert schedule.total_batch_size is not None
    ratio, flops = schedule.tokens_per_parameter, schedule.target_flops
    if flops is not None:
        steps = max(1, round(flops / flops_per_token / schedule.total_batch_size))
    elif ratio is None and config.data.data is None:
        steps = DEFAULT_ITERATIONS
    else:
        tokens = (DEFAULT_TOKENS_PER_PARAMETER if ratio is None else ratio) * matrix_parameters
        steps = max(1, round(tokens / schedule.total_batch_size))
    filled = dataclasses.replace(schedule, num_iterations=steps, tokens_per_parameter=None, target_flops=None)
    return dataclasses.replace(config, schedule=filled)


@dataclass(frozen=True)
class Plan:
    """The figures of a run. Bytes are estimates for one process; `seconds` is a first guess from the peak rate."""

    config: Config
    world_size: int
    parameters: dict[str, int]
    flops_per_token: int
    vocab_size: int
    dtype_bytes: int
    peak_flops: float
    peak_source: str
    keeps_probabilities: bool = False  # of attention, for the backward pass: the blocks of attention.py on CPUs

    @property
    def tokens(self) -> int:
        """Positions that the whole run trains on."""
        return (self.config.schedule.num_iterations or 0) * (self.config.schedule.total_batch_size or 0)

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a step on each process."""
        schedule = self.config.schedule
        micro_batch = (schedule.device_batch_size or 1) * self.config.model.sequence_length * self.world_size
        return (schedule.total_batch_size or 0) // micro_batch

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients, optimizer state, and what a micro-batch keeps for its backward pass."""
        matrices = self.parameters["matrices"]
        others = self.parameters["total"] - matrices
        state = 4 * matrices if self.config.optimizer.optimizer == "muon" else 8 * matrices
        tokens = (self.config.schedule.device_batch_size or 1) * self.config.model.sequence_length
        model = self.config.model
        seen = (model.n_head or 0) * model.sequence_length // 2 if self.keeps_probabilities else 0
        layers = model.depth * (KEPT_WIDTHS * (model.n_embd or 0) + seen) * self.dtype_bytes
        return (
            8 * self.parameters["total"] + state + 8 * others + tokens * (layers + KEPT_LOGIT_BYTES * self.vocab_size)
        )

    @property
    def seconds(self) -> float:
        """Training time at the usual share of the peak rate."""
        return self.tokens * self.flops_per_token / (USUAL_EFFICIENCY * self.peak_flops * self.world_size)


def describe(plan: Plan) -> list[str]:
    """The plan in a few lines for the user."""
    config, parameters = plan.config, plan.parameters
    schedule, optimizer = config.schedule, config.optimizer
    ratio = plan.tokens / (parameters["matrices"] + parameters["head"])
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in parameters.items() if kind != "total")
    price = config.run.price_per_hour * plan.seconds / 3600
    cost = f", for {price:,.2f} at {config.run.price_per_hour:g} an hour" if price else ""
    return [
        f"model      depth {config.model.depth}, width {config.model.n_embd}, {config.model.n_head} heads, "
        f"{parameters['total']:,} parameters ({kinds})",
        f"compute    {plan.flops_per_token / 1e6:,.1f} MFLOP a token, "
        f"{plan.tokens * plan.flops_per_token:.2e} FLOP in all",
        f"batch      {schedule.device_batch_size} rows x {config.model.sequence_length} tokens x "
        f"{plan.world_size} processes x {plan.accumulation_steps} = {schedule.total_batch_size:,} tokens a step",
        f"horizon    {schedule.num_iterations:,} steps, {plan.tokens:,} tokens, {ratio:.2g} tokens a matrix weight",
        f"optimizer  {optimizer.optimizer}, rates: matrices {optimizer.matrix_lr}, embedding {optimizer.embedding_lr}, "
        f"head {optimizer.head_lr}; weight decay {optimizer.weight_decay}",
        f"estimate   {plan.memory_bytes / 1e9:.2f} GB a process, about {duration(plan.seconds)} of training{cost} "
        f"({plan.peak_flops / 1e12:.2f} TFLOP/s {plan.peak_source}, {USUAL_EFFICIENCY:.0%} of it used)",
    ]
