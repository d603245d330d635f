"""Settings without holes: every rule is checked here, once, before anything is built, and what was left out is derived.

An error names the field, the value, the rule and the nearest legal values. What comes out is printed, logged and saved
with each checkpoint. Nothing here imports torch.

    config = derive(Config(model=ModelSettings(depth=6)), world_size=1, device_type="cpu")
    config.model.n_embd      # 384
"""

from __future__ import annotations

import dataclasses
import math

from nanofast.config import Config, ConfigError, ModelSettings, OptimizerSettings, ScheduleSettings
from nanofast.remote import require_local

# The default run: a depth-4 model on the sample corpus. Steps and batch were chosen on a 2-core Zen 4 server VM so that
# the whole of it, set-up, evaluation and report included, stays under four minutes.
DEFAULT_ITERATIONS = 200
# Tokens of a step that are known to be good at a depth. The best batch grows with the tokens of a run to the power 0.38
# (Bergsma et al. 2025), and these with the cube of the depth.
DEFAULT_TOTAL_BATCH_TOKENS = {"cpu": (4096, 4), "mps": (16_384, 4), "cuda": (524_288, 12)}
BATCH_EXPONENT = 3 * 0.383
# Tokens in one forward pass when nobody says: on the CPU more than this leaves the cache, on a GPU less leaves it idle.
DEFAULT_MICRO_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 65_536}
# Hoffmann et al. 2022 (Chinchilla): about 20 tokens for each parameter train best for a given amount of compute.
DEFAULT_TOKENS_PER_PARAMETER = 20.0

# Where learning rates are known to be good, and from where they are moved by width and batch. cpu: chosen by runs of
# the default configuration. cuda: nanochat's published rates for its width 768 at half a million tokens a step. Weight
# decay goes with the inverse square of the width, as nanochat's author found it to.
REFERENCE_RATES = {
    "cpu": {
        "n_embd": 256,
        "total_batch_size": 4096,
        "muon_lr": 0.04,
        "adamw_lr": 0.003,
        "embedding_lr": 0.2,
        "head_lr": 0.004,
        "weight_decay": 0.0,
    },
    "cuda": {
        "n_embd": 768,
        "total_batch_size": 524_288,
        "muon_lr": 0.02,
        "adamw_lr": 0.001,
        "embedding_lr": 0.2,
        "head_lr": 0.004,
        "weight_decay": 0.2,
    },
}


def nearest_multiples(value: int, step: int) -> str:
    """The legal values around `value` where only positive multiples of `step` are legal, for a message."""
    below = value // step * step
    return f"{below} or {below + step}" if below > 0 else str(step)


def _at_least(name: str, value: float, least: float, unit: str = "") -> None:
    if not least <= value < float("inf"):
        finite = " and finite" if value == float("inf") else ""
        raise ConfigError(
            f"{name} must be at least {least}{unit and ' ' + unit}{finite}; found {value}; nearest legal value: {least}"
        )


def _fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(
            f"{name} must lie between 0 and 1; found {value}; nearest legal value: {0 if value < 0 else 1}"
        )


def _positive(name: str, value: float, example: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be more than 0; found {value}; for example {example}")


def derive_n_head(n_embd: int, largest: int | None = None) -> int:
    """Heads of `largest` channels (128 from width 512 on, 64 below); smaller ones where the width is no multiple."""
    largest = (128 if n_embd >= 512 else 64) if largest is None else largest
    for size in (128, 64, 32, 16, 8, 4, 2):
        if n_embd % size == 0 and size <= largest:
            return n_embd // size
    raise ConfigError(f"n_embd must be even; found {n_embd}; nearest legal values: {nearest_multiples(n_embd, 2)}")


def _derive_model(model: ModelSettings) -> ModelSettings:
    _at_least("depth", model.depth, 1, "layer")
    _at_least("sequence_length", model.sequence_length, 1, "token")
    _at_least("logit_soft_cap", model.logit_soft_cap, 0)
    _positive("rope_base", model.rope_base, 10000)
    n_embd = 64 * model.depth if model.n_embd is None else model.n_embd
    _at_least("n_embd", n_embd, 2, "channels")
    largest = 128 if model.shape == "nanochat" else None
    n_head = derive_n_head(n_embd, largest) if model.n_head is None else model.n_head
    _at_least("n_head", n_head, 1, "head")
    if n_embd % (2 * n_head):
        raise ConfigError(
            f"n_embd must be a multiple of 2 x n_head = {2 * n_head} (rotary positions pair channels); found {n_embd}; "
            f"nearest legal values: {nearest_multiples(n_embd, 2 * n_head)}"
        )
    pattern = ("SSSL" if model.shape == "nanochat" else "L") if model.window_pattern is None else model.window_pattern
    if not pattern or set(pattern) - {"S", "L"}:
        raise ConfigError(f"window_pattern must be letters S and L; found `{pattern}`; for example SSSL")
    return dataclasses.replace(model, n_embd=n_embd, n_head=n_head, window_pattern=pattern)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not more than `most`."""
    return next(d for d in range(max(1, min(number, most)), 0, -1) if number % d == 0)


def default_total_batch(depth: int, device_type: str) -> int:
    """Tokens of a step at a depth: a power of two."""
    tokens, reference_depth = DEFAULT_TOTAL_BATCH_TOKENS.get(device_type, DEFAULT_TOTAL_BATCH_TOKENS["mps"])
    return 1 << int(math.log2(tokens) + BATCH_EXPONENT * math.log2(depth / reference_depth))


def _derive_batch(
    schedule: ScheduleSettings, model: ModelSettings, world_size: int, device_type: str
) -> ScheduleSettings:
    """Fill in total and device batch. total = device batch x sequence length x processes x accumulation steps."""
    total, rows, sequence_length = schedule.total_batch_size, schedule.device_batch_size, model.sequence_length
    wanted_rows = max(1, DEFAULT_MICRO_BATCH_TOKENS.get(device_type, 8192) // sequence_length)
    if rows is not None:
        _at_least("device_batch_size", rows, 1, "row")
    if total is None:
        portion = (rows or 1) * sequence_length * world_size
        wanted = default_total_batch(model.depth, device_type)
        total = max(1, round(wanted / portion)) * portion
    _at_least("total_batch_size", total, 1, "token")
    if rows is None:
        share = total // (sequence_length * world_size)
        rows = largest_divisor(share, wanted_rows) if share else 1
    # a derived device batch adapts to any total of whole rows, so only a given one is part of the rule
    factors = {} if schedule.device_batch_size is None else {"device_batch_size": schedule.device_batch_size}
    factors |= {"sequence_length": sequence_length, "processes": world_size}
    portion = math.prod(factors.values())
    if total % portion:
        raise ConfigError(
            f"total_batch_size must be a multiple of {' x '.join(factors)} = {' x '.join(map(str, factors.values()))} "
            f"= {portion} tokens; found {total}; nearest legal values: {nearest_multiples(total, portion)}"
        )
    return dataclasses.replace(schedule, total_batch_size=total, device_batch_size=rows)


def _derive_rates(
    optimizer: OptimizerSettings, model: ModelSettings, total_batch_size: int, device_type: str
) -> OptimizerSettings:
    """Rates where none are given: the reference's, moved by width, and by the square root of the batch."""
    assert model.n_embd is not None
    reference = REFERENCE_RATES[device_type if device_type in REFERENCE_RATES else "cpu"]
    batch_factor = (total_batch_size / reference["total_batch_size"]) ** 0.5
    width_factor = (model.n_embd / reference["n_embd"]) ** -0.5  # of what AdamW moves; Muon's update knows no width
    matrix_lr = reference["muon_lr"] if optimizer.optimizer == "muon" else reference["adamw_lr"] * width_factor
    derived = {
        "matrix_lr": matrix_lr * batch_factor,
        "embedding_lr": reference["embedding_lr"] * batch_factor * width_factor,
        "head_lr": reference["head_lr"] * batch_factor * width_factor,
        "weight_decay": reference["weight_decay"] * (reference["n_embd"] / model.n_embd) ** 2,
    }
    missing = {name: float(f"{rate:.4g}") for name, rate in derived.items() if getattr(optimizer, name) is None}
    return dataclasses.replace(optimizer, **missing)  # type: ignore[arg-type]  # only rates are missing


def derive_lanes(batches_per_step: int, world_size: int) -> int:
    """The most lanes (up to 8) with which a step is a whole number of rounds, a multiple of the processes."""
    for lanes in (8, 4, 2, 1):
        if batches_per_step % lanes == 0 and lanes % world_size == 0:
            return lanes
    return world_size


def _check_rest(config: Config) -> None:
    schedule, optimizer, evaluation, run = config.schedule, config.optimizer, config.evaluation, config.run
    for name, place in (("run", run.run), ("home", run.home), ("cache_folder", config.data.cache_folder)):
        require_local(name, place)
    horizons = ("num_iterations", "tokens_per_parameter", "target_flops")
    given = [name for name in horizons if getattr(schedule, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} all set the horizon; give one of them")
    if schedule.target_flops is not None:
        _positive("target_flops", schedule.target_flops, 1e15)
    if schedule.num_iterations is not None:
        _at_least("num_iterations", schedule.num_iterations, 1, "step")
    if schedule.tokens_per_parameter is not None:
        _positive("tokens_per_parameter", schedule.tokens_per_parameter, DEFAULT_TOKENS_PER_PARAMETER)
    for name in ("warmup_ratio", "warmdown_ratio", "final_lr_frac"):
        _fraction(name, getattr(schedule, name))
    if schedule.warmup_ratio + schedule.warmdown_ratio > 1:
        most = round(1 - schedule.warmup_ratio, 6)
        raise ConfigError(
            f"warmup_ratio + warmdown_ratio must not exceed 1; found {schedule.warmup_ratio} + "
            f"{schedule.warmdown_ratio}; nearest legal warmdown_ratio: {most}"
        )
    for name in ("matrix_lr", "embedding_lr", "head_lr"):
        if getattr(optimizer, name) is not None:
            _positive(name, getattr(optimizer, name), 0.003)
    for name, text in (
        ("data", config.data.data),
        ("tokenizer", config.data.tokenizer),
        ("run", run.run),
        ("home", run.home),
        ("data_home", run.data_home),
        ("tokenizer_home", run.tokenizer_home),
    ):
        if text is not None and not text.strip():  # most often a shell variable that is not set
            raise ConfigError(f"{name} is empty; expected a name or a path; give one, or leave the flag out")
    _positive("scale_lr", optimizer.scale_lr, 0.01)
    if optimizer.weight_decay is not None:
        _at_least("weight_decay", optimizer.weight_decay, 0)
    _at_least("grad_clip", optimizer.grad_clip, 0)
    for name in ("beta1", "beta2", "momentum"):
        if not 0 <= getattr(optimizer, name) < 1:
            raise ConfigError(
                f"{name} must be at least 0 and less than 1; found {getattr(optimizer, name)}; for example 0.9"
            )
    for name, group in (("eval_every", evaluation), ("sample_every", evaluation), ("save_every", run)):
        _at_least(name, getattr(group, name), -1, "(never)")
    _at_least("price_per_hour", run.price_per_hour, 0)
    if not 0 <= run.seed < 1 << 63:
        nearest = 0 if run.seed < 0 else (1 << 63) - 1
        raise ConfigError(
            f"seed must be at least 0 and less than 2^63; found {run.seed}; nearest legal value: {nearest}"
        )
    _at_least("keep_last", run.keep_last, 0)
    _at_least("keep_every", run.keep_every, 0)
    _at_least("eval_tokens", evaluation.eval_tokens, 1, "token")
    _at_least("sample_tokens", evaluation.sample_tokens, 1, "token")
    _at_least("temperature", evaluation.temperature, 0)
    _at_least("top_k", evaluation.top_k, 0)
    for name, value in (
        ("lanes", config.data.lanes),
        ("loader_threads", config.data.loader_threads),
        ("log_every", run.log_every),
        ("torch_threads", run.torch_threads),
    ):
        if value is not None:
            _at_least(name, value, 1)


def derive(config: Config, *, world_size: int, device_type: str) -> Config:
    """Check every rule and fill in what is derived without building a model (the horizon needs one: see plan.py)."""
    _check_rest(config)
    model = _derive_model(config.model)
    schedule = _derive_batch(config.schedule, model, world_size, device_type)
    assert schedule.total_batch_size is not None
    assert schedule.device_batch_size is not None
    batches_per_step = schedule.total_batch_size // (schedule.device_batch_size * model.sequence_length)
    lanes = derive_lanes(batches_per_step, world_size) if config.data.lanes is None else config.data.lanes
    if lanes % world_size:
        raise ConfigError(
            f"lanes must be a multiple of the processes, {world_size}; found {lanes}; "
            f"nearest legal values: {nearest_multiples(lanes, world_size)}"
        )
    optimizer = _derive_rates(config.optimizer, model, schedule.total_batch_size, device_type)
    log_every = (1 if device_type == "cpu" else 10) if config.run.log_every is None else config.run.log_every
    return dataclasses.replace(
        config,
        model=model,
        schedule=schedule,
        optimizer=optimizer,
        data=dataclasses.replace(config.data, lanes=lanes),
        run=dataclasses.replace(config.run, log_every=log_every),
    )
