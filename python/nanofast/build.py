"""From a configuration to a `Trainer`: device, threads, data (run_data.py), model, optimizers, run folder.

Nothing is written before all of it is known to fit together.

    prepared = prepare(config, resumed=None)
    trainer = build(prepared, stage, resumed=None, command=["python", "-m", "nanofast.train"])
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nanofast import checkpoint, conversations
from nanofast.attention import choose_kernels
from nanofast.chat_tasks import read_task
from nanofast.compiling import compile_blocks
from nanofast.config import Config, ConfigError, to_dict
from nanofast.config_file import in_lines, write_toml
from nanofast.derive import derive
from nanofast.distributed import World, broadcast_from_main, connect, object_from_main, share_cores
from nanofast.documents_log import LOG, DocumentsLog
from nanofast.environment import machine, versions
from nanofast.home import home_folder
from nanofast.journal import Journal
from nanofast.model import GPT, GPTConfig
from nanofast.optim import Optimizers
from nanofast.peak import peak_flops
from nanofast.plan import Plan, describe, with_horizon
from nanofast.precision import choose_dtype
from nanofast.progress import Progress
from nanofast.resume import TOKENIZER_FILE, Found, check_same_model
from nanofast.run_data import find_data, open_loader, open_validation_loader
from nanofast.run_folder import open_run
from nanofast.runlog import RunLog
from nanofast.stages import Stage
from nanofast.start import load_weights, read_tensors, require_same_optimizer, warm_start
from nanofast.tracking import Tracker
from nanofast.trainer import Trainer


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
        window_pattern=model.window_pattern or "L",
        has_value_embeddings=model.shape == "nanochat",
        has_residual_scales=model.shape == "nanochat",
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


@dataclass(frozen=True)
class Prepared:
    """All that is decided before anything of size is made: the configuration has no holes left."""

    config: Config
    world: World
    home: Path
    data: str
    tokenizer: Any
    tokenizer_name: str
    num_known: int  # ids of the vocabulary before special tokens were added to it
    shape: GPTConfig
    dtype: torch.dtype
    plan: Plan
    reasons: dict[str, str]
    started: float


def prepare(config: Config, resumed: Found | None) -> Prepared:
    """Find device, cores, data, tokenizer, type and horizon; refuse what does not fit together."""
    started = time.perf_counter()
    home = home_folder(config.run.home)
    world = connect(config.run.device)
    config = derive(config, world_size=world.world_size, device_type=world.device.type)
    if config.run.parallel == "fsdp" and world.world_size == 1:
        raise ConfigError("parallel fsdp takes several processes, and this one is alone; start it with torchrun")
    if resumed is not None:
        check_same_model(resumed.config, config)
    config, thread_reason = _set_threads(config, world)
    data, tokenizer, tokenizer_name = find_data(config, home, world)
    num_known = tokenizer.vocab_size
    if config.data.documents == "conversations":
        for task in config.chat.tasks:
            read_task(Path(task))  # refused before anything is trained
        tokenizer = conversations.with_template(tokenizer, config.chat)
        config = conversations.with_one_pass(config, tokenizer)
    assert config.model.n_embd is not None
    assert config.schedule.device_batch_size is not None
    shape = model_config(config, tokenizer.vocab_size)
    num_tokens = config.schedule.device_batch_size * config.model.sequence_length
    dtype, dtype_reason = object_from_main(
        choose_dtype(config.run.dtype, world.device, config.model.n_embd, num_tokens)
    )
    dtype_name: Literal["bfloat16", "float32"] = "bfloat16" if dtype is torch.bfloat16 else "float32"
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, dtype=dtype_name))
    with torch.device("meta"):
        counted = GPT(shape)
    counts, flops = counted.count_parameters(), counted.flops_per_token()
    config = with_horizon(config, counts["matrices"] + counts["head"], flops)
    rate, source = object_from_main(peak_flops(world.device, dtype))
    plan = Plan(
        config,
        world.world_size,
        counts,
        flops,
        shape.vocab_size,
        dtype.itemsize,
        rate,
        source,
        world.device.type == "cpu",
    )
    # resolved only here, since whether data was named decides the horizon
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data=data, tokenizer=tokenizer_name))
    reasons = {"dtype": dtype_reason, "threads": thread_reason}
    return Prepared(
        config, world, home, data, tokenizer, tokenizer_name, num_known, shape, dtype, plan, reasons, started
    )


def announce(prepared: Prepared) -> list[str]:
    """What is about to happen, in a few lines."""
    config = prepared.config
    return [
        *(f"settings   {line}" for line in in_lines(config)),
        *describe(prepared.plan),
        f"device     {prepared.world.device}, {config.run.dtype} ({prepared.reasons['dtype']})",
        f"threads    torch {config.run.torch_threads}, loader {config.data.loader_threads} "
        f"({prepared.reasons['threads']})",
    ]


def build(prepared: Prepared, stage: Stage, resumed: Found | None, start: Found | None, command: list[str]) -> Trainer:
    """Everything that `Trainer.fit` needs. Raises the loader's errors before anything is written."""
    config, world, tokenizer, plan = prepared.config, prepared.world, prepared.tokenizer, prepared.plan
    assert config.data.lanes is not None
    snapshot = checkpoint.load(resumed.path) if resumed is not None else None
    model = GPT(prepared.shape, prepared.dtype)
    model.initialize(torch.Generator().manual_seed(config.run.seed))
    begun_from = {} if start is None else read_tensors(start.path)
    if start is not None:
        if config.run.warm_optimizer:
            require_same_optimizer(start.config.optimizer, config.optimizer)
        load_weights(model, begun_from["model"], prepared.num_known)
    if config.run.parallel == "data":
        model.to(world.device)
        broadcast_from_main([parameter.data for parameter in model.parameters()])
    kernels = choose_kernels(world.device, prepared.dtype, prepared.shape.head_size, prepared.shape.has_windows)
    model.use_window_kernel(kernels.window)
    is_compiled, compile_reason = compile_blocks(model, config.run.compile, world.device)
    if config.run.parallel == "fsdp":
        from nanofast.fsdp import shard_model

        shard_model(model, world.device)
    torch.manual_seed(config.run.seed)

    rows = config.schedule.device_batch_size
    lanes, keeps = config.data.lanes, config.data.log_documents
    loader = open_loader(config, prepared.data, tokenizer, world, "train", lanes, rows, return_documents=keeps)

    def open_validation() -> tuple[Any, int]:
        return open_validation_loader(config, prepared.data, tokenizer, world, config.evaluation.eval_tokens)

    config, run_dir = open_run(config, prepared.home, world, resumed)
    if keeps:
        loader = DocumentsLog(loader, run_dir / LOG, world.rank, plan.accumulation_steps)
    num_iterations, tokens_per_step = config.schedule.num_iterations, config.schedule.total_batch_size
    assert num_iterations is not None
    assert tokens_per_step is not None
    log = None
    if world.is_main:
        log = RunLog(run_dir)
        write_toml(config, run_dir / "config.toml")
        tokenizer.save(run_dir / TOKENIZER_FILE)
    trainer = Trainer(
        config=config,
        world=world,
        model=model,
        optimizers=Optimizers(model, config.optimizer, rank=world.rank, world_size=world.world_size),
        loader=loader,
        open_validation=open_validation,
        tokenizer=tokenizer,
        token_bytes_V=torch.from_numpy(tokenizer.token_bytes()).to(world.device),
        run_dir=run_dir,
        journal=Journal(
            log,
            Progress(num_iterations, quiet=not world.is_main),
            num_iterations=num_iterations,
            tokens_per_step=tokens_per_step,
            device=world.device,
            flops_per_token=plan.flops_per_token,
            peak_flops=plan.peak_flops * world.world_size,
            tracker=Tracker(config.run.track, run_dir, to_dict(config)) if log and config.run.track != "none" else None,
        ),
        is_compiled=is_compiled,
        facts={"stage": stage.name, "world_size": world.world_size, "versions": versions()},
    )
    if start is not None and config.run.warm_optimizer:
        warm_start(trainer.optimizers, model, begun_from["optimizer"])
    abandoned: list[Path] = []
    if snapshot is not None and resumed is not None:
        trainer.restore(snapshot)
        if world.is_main and resumed.path.parent == run_dir / "checkpoints":
            abandoned = checkpoint.set_aside_after(resumed.path.parent, trainer.counters.step)
    if keeps:
        loader.begin_at(trainer.counters.step)
    name = prepared.tokenizer_name
    trainer.journal.write(
        "run",
        **trainer.facts,
        run_dir=str(run_dir),
        resumed_from=str(resumed.path) if resumed else None,
        begun_from=str(start.path) if start else None,
        step=trainer.counters.step,
        command=command,
        config=to_dict(config),
        num_iterations=num_iterations,
        tokens_per_step=tokens_per_step,
        tokenizer={"name": name, "vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        parameters=plan.parameters,
        flops_per_token=plan.flops_per_token,
        dtype=config.run.dtype,
        dtype_reason=prepared.reasons["dtype"],
        attention=kernels.told,
        compiled=is_compiled,
        compile_reason=compile_reason,
        threads={
            "torch": config.run.torch_threads,
            "loader": config.data.loader_threads,
            "reason": prepared.reasons["threads"],
        },
        peak_flops={"rate": plan.peak_flops, "source": plan.peak_source},
        machine=machine(world.device),
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    compiling = f"compile    {'on' if is_compiled else 'off'} ({compile_reason})"
    for line in [f"run        {run_dir}", *announce(prepared), f"attention  {kernels.told}", compiling]:
        trainer.journal.progress.say(line)
    if resumed is not None:
        for reason in resumed.skipped:
            trainer.journal.event(f"passed over: {reason}", "warning")
        trainer.journal.event(f"resumed from {resumed.path} at step {trainer.counters.step}")
        for path in abandoned:
            trainer.journal.event(f"set aside: `{path}`, which is of a later step")
    trainer.phase_seconds["setup"] = time.perf_counter() - prepared.started
    return trainer
