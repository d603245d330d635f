"""From a configuration to a `Trainer`: device, threads, data, tokenizer, loaders, model, optimizers, run folder.

Nothing is written before all of it is known to fit together.

    trainer = build(config, stage, resumed=None, command=["python", "-m", "nanofast.train"])
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nanofast import checkpoint
from nanofast.config import Config, derive, to_dict
from nanofast.distributed import World, broadcast_from_main, connect, object_from_main, share_cores
from nanofast.environment import machine, versions
from nanofast.journal import Journal
from nanofast.model import GPT, GPTConfig
from nanofast.optim import Optimizers
from nanofast.plan import with_horizon
from nanofast.precision import choose_dtype
from nanofast.progress import Progress
from nanofast.resume import Found, check_same_model, home_folder, run_folder
from nanofast.runlog import RunLog
from nanofast.stages import Stage
from nanofast.trainer import Trainer

# Validation is dealt to a fixed number of lanes, so that every world size that divides it sees the same tokens.
VALIDATION_LANES = 8


def model_config(config: Config, vocab_size: int) -> GPTConfig:
    """The model's shape, from a configuration without holes."""
    model = config.model
    assert model.n_embd is not None
    assert model.n_head is not None
    return GPTConfig(
        vocab_size=vocab_size,
        sequence_length=model.sequence_length,
        n_layer=model.depth,
        n_head=model.n_head,
        n_embd=model.n_embd,
        rope_base=model.rope_base,
        logit_soft_cap=model.logit_soft_cap,
    )


def _set_threads(config: Config, world: World) -> tuple[Config, str]:
    """Share the cores; a number in the configuration (as in a resumed one) goes before the derived one."""
    shared = share_cores(world.device.type, world.local_world_size)
    run, data = config.run, config.data
    torch_threads = shared.torch if run.torch_threads is None else run.torch_threads
    loader_threads = shared.loader if data.loader_threads is None else data.loader_threads
    torch.set_num_threads(torch_threads)
    reason = shared.reason
    if torch_threads != shared.torch:
        reason += f"; torch_threads={torch_threads} as configured"
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(run, torch_threads=torch_threads),
        data=dataclasses.replace(data, loader_threads=loader_threads),
    )
    return config, reason


def _data_and_tokenizer(config: Config, home: Path, world: World) -> tuple[str, Any, str]:
    """Where the text is, the tokenizer and its name; the sample corpus is made, once, on the main rank."""
    import nanofast

    data, name = config.data.data, config.data.tokenizer
    if data is None or name is None:
        made = None
        if world.is_main:
            from nanofast.data.sample import ensure_sample

            made = tuple(str(path) for path in ensure_sample(home))
        made = object_from_main(made)
        assert made is not None
        data, name = data or made[0], name or made[1]
    tokenizer = nanofast.Tokenizer.from_file(name) if Path(name).exists() else nanofast.Tokenizer.from_name(name)
    return data, tokenizer, name


def open_loader(config: Config, data: str, tokenizer: Any, world: World, split: str, lanes: int) -> Any:
    """A loader over one split of the data, as the configuration wants it."""
    import nanofast

    assert config.schedule.device_batch_size is not None
    return nanofast.TokenLoader(
        data,
        tokenizer,
        batch_size=config.schedule.device_batch_size,
        sequence_length=config.model.sequence_length,
        text_column=config.data.text_column,
        split=split,
        packing=config.data.packing,
        overflow=config.data.overflow,
        rank=world.rank,
        world_size=world.world_size,
        lanes=lanes,
        shuffle=config.data.shuffle and split == "train",
        seed=config.run.seed,
        device=world.device,
        num_threads=config.data.loader_threads,
    )


def validation_batches(config: Config, world: World, lanes: int) -> int:
    """Batches of one validation on each rank: the wanted tokens, rounded up to whole rounds."""
    assert config.schedule.device_batch_size is not None
    round_tokens = lanes * config.schedule.device_batch_size * config.model.sequence_length
    rounds = math.ceil(config.evaluation.eval_tokens / round_tokens)
    return rounds * lanes // world.world_size


def _open_run(config: Config, home: Path, world: World) -> tuple[Config, Path]:
    """Choose the run's folder, the same on all ranks."""
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    run_dir = run_folder(config.run.run or object_from_main(f"d{config.model.depth}-{stamp}"), home)
    return dataclasses.replace(config, run=dataclasses.replace(config.run, run=str(run_dir), resume=None)), run_dir


def build(config: Config, stage: Stage, resumed: Found | None, command: list[str]) -> Trainer:
    """Everything that `Trainer.fit` needs. Raises ConfigError, or the loader's errors, before anything is written."""
    started = time.perf_counter()
    home = home_folder(config.run.home)
    world = connect(config.run.device)
    config = derive(config, world_size=world.world_size, device_type=world.device.type)
    if resumed is not None:
        check_same_model(resumed.config, config)
    config, thread_reason = _set_threads(config, world)
    snapshot = checkpoint.load(resumed.path) if resumed is not None else None

    data, tokenizer, tokenizer_name = _data_and_tokenizer(config, home, world)
    lanes = config.data.lanes
    assert lanes is not None
    assert config.model.n_embd is not None
    shape = model_config(config, tokenizer.vocab_size)
    dtype, dtype_reason = choose_dtype(
        object_from_main(config.run.dtype),
        world.device,
        config.model.n_embd,
        (config.schedule.device_batch_size or 1) * config.model.sequence_length,
    )
    dtype, dtype_reason = object_from_main((dtype, dtype_reason))
    config = dataclasses.replace(
        config, run=dataclasses.replace(config.run, dtype="bfloat16" if dtype is torch.bfloat16 else "float32")
    )

    model = GPT(shape, dtype)
    model.initialize(torch.Generator().manual_seed(config.run.seed))
    model.to(world.device)
    broadcast_from_main([parameter.data for parameter in model.parameters()])
    counts = model.count_parameters()
    config = with_horizon(config, counts["matrices"] + counts["head"])
    torch.manual_seed(config.run.seed)

    loader = open_loader(config, data, tokenizer, world, "train", lanes)
    validation_lanes = VALIDATION_LANES if VALIDATION_LANES % world.world_size == 0 else world.world_size

    def open_validation() -> tuple[Any, int]:
        opened = open_loader(config, data, tokenizer, world, "val", validation_lanes)
        return opened, validation_batches(config, world, validation_lanes)

    config, run_dir = _open_run(config, home, world)
    log = None
    if world.is_main:
        log = RunLog(run_dir)
        (run_dir / "config.json").write_text(json.dumps(to_dict(config), indent=1), encoding="utf-8")
    assert config.schedule.num_iterations is not None
    assert config.schedule.total_batch_size is not None
    trainer = Trainer(
        config=config,
        world=world,
        model=model,
        optimizers=Optimizers(model, config.optimizer),
        loader=loader,
        open_validation=open_validation,
        tokenizer=tokenizer,
        token_bytes_V=torch.from_numpy(tokenizer.token_bytes()).to(world.device),
        run_dir=run_dir,
        journal=Journal(
            log,
            Progress(config.schedule.num_iterations, quiet=not world.is_main),
            num_iterations=config.schedule.num_iterations,
            tokens_per_step=config.schedule.total_batch_size,
            device=world.device,
            flops_per_token=model.flops_per_token(),
        ),
        facts={"stage": stage.name, "world_size": world.world_size, "versions": versions()},
    )
    if snapshot is not None:
        trainer.restore(snapshot)
    facts = {
        **trainer.facts,
        "run_dir": str(run_dir),
        "resumed_from": str(resumed.path) if resumed else None,
        "step": trainer.counters.step,
        "command": command,
        "config": to_dict(config),
        "num_iterations": config.schedule.num_iterations,
        "tokens_per_step": config.schedule.total_batch_size,
        "tokenizer": {"name": tokenizer_name, "vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        "parameters": counts,
        "flops_per_token": model.flops_per_token(),
        "dtype": config.run.dtype,
        "dtype_reason": dtype_reason,
        "threads": {"torch": config.run.torch_threads, "loader": config.data.loader_threads, "reason": thread_reason},
        "peak_flops": None,
        "machine": machine(world.device),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if log is not None:
        log.write("run", **facts)
    _announce(trainer, facts, resumed)
    trainer.phase_seconds["setup"] = time.perf_counter() - started
    return trainer


def _announce(trainer: Trainer, facts: dict[str, Any], resumed: Found | None) -> None:
    """Say in a few lines what is about to happen."""
    config, threads, parameters = trainer.config, facts["threads"], facts["parameters"]
    say: Callable[[str], None] = trainer.journal.progress.say
    say(f"run        {facts['run_dir']}")
    say(
        f"model      depth {config.model.depth}, width {config.model.n_embd}, {config.model.n_head} heads, "
        f"{parameters['total']:,} parameters, {facts['flops_per_token'] / 1e6:,.1f} MFLOP a token"
    )
    say(
        f"batch      {config.schedule.device_batch_size} rows x {config.model.sequence_length} tokens x "
        f"{trainer.world.world_size} processes x {trainer.accumulation_steps} = {trainer.tokens_per_step:,} tokens "
        f"a step, {trainer.num_iterations:,} steps"
    )
    say(f"device     {trainer.world.device}, {facts['dtype']} ({facts['dtype_reason']})")
    say(f"threads    torch {threads['torch']}, loader {threads['loader']} ({threads['reason']})")
    if resumed is not None:
        for reason in resumed.skipped:
            trainer.journal.event(f"passed over: {reason}", "warning")
        trainer.journal.event(f"resumed from {resumed.path} at step {trainer.counters.step}")
