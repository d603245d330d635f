"""Every setting of a training run, as frozen dataclasses. A field's docstring, with its unit, is its command-line help.

A field that is None is derived from the others (derive.py), which also checks every rule. Nothing here imports torch,
so a wrong flag is refused at once.

    config = Config(model=ModelSettings(depth=6))
    from_dict(to_dict(config)) == config
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting that breaks a rule. The message is one line for the user."""


@dataclass(frozen=True)
class ModelSettings:
    """What the model looks like."""

    depth: int = 4
    """The one dial (layers): width, heads, learning rates and batch follow from it where they are not set."""
    shape: Literal["plain", "nanochat"] = "nanochat"
    """nanochat has value embeddings, learned scales of the residual stream, heads of 128 channels and SSSL windows."""
    sequence_length: int = 256
    """Tokens that the model sees at once (tokens)."""
    n_embd: int | None = None
    """Width of the residual stream (channels). Derived: 64 x depth."""
    n_head: int | None = None
    """Attention heads of a layer. Derived: heads of 128 channels; in the plain shape of 64 below width 512."""
    window_pattern: str | None = None
    """What layers see, in turn: L all positions, S the last quarter; the last layer is L. Derived from the shape."""
    rope_base: float = 10_000.0
    """Base of the rotary position frequencies."""
    logit_soft_cap: float = 15.0
    """Logits are squeezed smoothly into plus and minus this; 0 switches it off."""


@dataclass(frozen=True)
class DataSettings:
    """Where text comes from and how it becomes rows."""

    data: str | None = None
    """Parquet or token files: a file, folder or glob; of parquet also a URL (s3, gs, az, http, https, hf). Derived: a
    sample corpus made from this Python's library.
    A mixture: NAME=PATH:WEIGHT,…, read in shares of tokens. Conversations: PATH[:COUNT],… of parquet or JSONL, each
    listed COUNT times in a pass."""
    documents: Literal["text", "conversations"] = "text"
    """What the documents are; midtrain and sft set it."""
    tokenizer: str | None = None
    """Name of a bundled vocabulary or a tokenizer file. Derived: the one beside token files, else one of 4,096 tokens
    trained on the sample corpus."""
    text_column: str = "text"
    """Column that holds the text."""
    cache_folder: str | None = None
    """Folder that keeps what is read from URLs, for later epochs, runs and the other processes of the machine."""
    cache_limit_bytes: int = 50_000_000_000
    """Most bytes in that folder; what was not used for longest goes first."""
    remote_timeout_seconds: float = 120.0
    """Seconds after which a read from a URL that does not succeed ends the run, retries included."""
    packing: Literal["best_fit", "concat", "one_per_row"] = "best_fit"
    """How documents become rows."""
    overflow: Literal["carry", "crop", "pad"] = "carry"
    """What best_fit does when no document fits: cut and keep the rest, cut and drop it, or pad."""
    shuffle: bool = False
    """Read row groups and documents in a seeded random order."""
    on_bad_data: Literal["raise", "quarantine"] = "raise"
    """End the run where data is damaged, or leave out the smallest part that is bad and list it in log and report."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"
    """Take a document that is not UTF-8 for damaged data, or put U+FFFD where it is not."""
    log_documents: bool = False
    """Keep which documents were in which step, as parquet in the run's folder (text only; takes pyarrow)."""
    lanes: int | None = None
    """Independent streams that the data is dealt to. Derived: 8, 4, 2 or 1, so that a step ends at a round's end."""
    loader_threads: int | None = None
    """Threads that read and tokenize. Derived from the cores that torch leaves over."""


@dataclass(frozen=True)
class ChatSettings:
    """What midtrain and sft need to know of conversations."""

    template: str = "nanochat"
    """What stands around messages: nanochat, chatml or llama3."""
    add_special_tokens: bool = False
    """Add the template's special tokens where the tokenizer lacks them, and rows for them to the model."""
    layout: Literal["messages", "sharegpt", "alpaca"] = "messages"
    """How the data names roles and what is said."""
    messages_column: str | None = None
    """Column of the messages. Derived: messages, or conversations with sharegpt."""
    too_long: Literal["cut_end", "cut_left", "leave_out"] = "cut_end"
    """What becomes of a conversation that is longer than a row."""
    learned_roles: tuple[str, ...] = ("assistant",)
    """Roles whose messages are learned (sft)."""
    only_last_turn: bool = False
    """Learn only the last message of these roles (sft)."""
    val_data: str | None = None
    """Conversations to validate on, as for data. Derived: the last file of the data, or the last twentieth of a single
    one."""
    tasks: tuple[str, ...] = ()
    """JSONL files of questions, asked at the end: a question with choices, or with an answer that is to be matched."""
    questions: tuple[str, ...] = ("What is a list?", "How do I open a file?")
    """What the samples ask."""


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights move."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """Optimizer of the matrices; embedding and head always use AdamW."""
    matrix_lr: float | None = None
    """Learning rate of the matrices. Derived from optimizer, width and batch."""
    embedding_lr: float | None = None
    """Learning rate of the embedding. Derived from width and batch."""
    head_lr: float | None = None
    """Learning rate of the head. Derived from width and batch."""
    scale_lr: float = 0.01
    """Learning rate of the residual stream's scales, in a shape that has them."""
    weight_decay: float | None = None
    """Decoupled weight decay of the matrices, a multiple of the learning rate; falls to 0 over the run. Derived from
    the width; 0 on a CPU, whose runs are too short for it."""
    momentum: float = 0.95
    """Muon's momentum after its warm-up."""
    beta1: float = 0.8
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay of the mean squared gradient."""
    grad_clip: float = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it. 0 switches clipping off."""


@dataclass(frozen=True)
class ScheduleSettings:
    """How long, in what portions, and how the learning rate moves."""

    num_iterations: int | None = None
    """Optimizer steps. Derived: 200 on the sample corpus, else from tokens_per_parameter."""
    tokens_per_parameter: float | None = None
    """Horizon as tokens for each trained matrix weight. Derived: 20 (Hoffmann et al. 2022) when data is named."""
    target_flops: float | None = None
    """Horizon as floating-point operations of the whole run (FLOP)."""
    total_batch_size: int | None = None
    """Tokens of one optimizer step over all processes (tokens). Derived from depth and device."""
    device_batch_size: int | None = None
    """Rows of one forward pass on one device (rows). Derived from the device and the total batch."""
    warmup_ratio: float = 0.02
    """Share of the steps in which the learning rate rises (0 to 1)."""
    warmdown_ratio: float = 0.5
    """Share of the steps in which the learning rate falls (0 to 1)."""
    final_lr_frac: float = 0.0
    """Where the learning rate ends, as a fraction of its height (0 to 1)."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is looked at while training. Each `every` counts steps; 0 means only at the end, -1 never."""

    eval_every: int = 50
    """Steps between validations in bits per byte."""
    eval_tokens: int = 32_768
    """Tokens of one validation, rounded up to whole rows of every lane (tokens)."""
    sample_every: int = 100
    """Steps between samples."""
    sample_tokens: int = 96
    """Length of a sample (tokens)."""
    sample_prompts: tuple[str, ...] = ("def ", "class ", "import ", "Return the ")
    """Beginnings that the model continues."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: int = 50
    """Sample among this many likeliest tokens; 0 means all."""


@dataclass(frozen=True)
class RunSettings:
    """Where the run lives and what it runs on."""

    config: str | None = None
    """TOML or Python file of settings, laid over the defaults and under the flags."""
    dry_run: bool = False
    """Print the plan and stop."""
    run: str | None = None
    """Name or folder of the run. Derived: the depth and the date."""
    home: str | None = None
    """Folder of data, tokenizers and runs. Derived: NANOFAST_HOME, else ~/.cache/nanofast."""
    data_home: str | None = None
    """Folder of the sample corpus. Derived: HOME/data."""
    tokenizer_home: str | None = None
    """Folder of the vocabulary trained on the sample corpus. Derived: HOME/tokenizers."""
    from_run: str | None = None
    """Run or checkpoint folder that midtrain or sft begins from (also --from)."""
    warm_optimizer: bool = False
    """Take over the checkpoint's optimizer state too."""
    resume: str | None = None
    """`auto`, a run folder or a checkpoint folder to continue exactly."""
    save_every: int = 100
    """Steps between checkpoints; 0 means only at the end, -1 never."""
    keep_last: int = 3
    """Newest checkpoints that are kept; 0 keeps all."""
    keep_every: int = 0
    """Checkpoints at multiples of this many steps are kept for good; 0 means none."""
    checkpoint_format: Literal["whole", "sharded"] = "whole"
    """whole: safetensors of full tensors; sharded: each process writes its part by torch's DCP, for trusted files."""
    parallel: Literal["data", "fsdp"] = "data"
    """Over several processes: data keeps all weights on each and deals out the optimizer; fsdp cuts the weights too."""
    seed: int = 0
    """Seed of weights, shuffling and samples."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Activations' type. auto: bfloat16 on GPUs that have it, on a CPU where a measurement says it is faster."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model's blocks by torch.compile. auto: on CUDA."""
    torch_threads: int | None = None
    """Threads of torch's own kernels. Derived: OMP_NUM_THREADS when set, else this process's share of the cores."""
    log_every: int | None = None
    """Steps between readings of the device's losses. Derived: 1 on the CPU, 10 elsewhere."""
    track: Literal["none", "tensorboard", "wandb"] = "none"
    """Send figures to TensorBoard or Weights & Biases too; needs the extra of that name."""
    price_per_hour: float = 0.0
    """What an hour of all machines of the run costs, in any currency; the plan and the report then name the cost."""
    report: bool = True
    """Write report.html at the end."""


@dataclass(frozen=True)
class Config:
    """All settings of a run, by group."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    run: RunSettings = field(default_factory=RunSettings)


def to_dict(config: Config) -> dict[str, Any]:
    """A nested dict of plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`; unknown groups and fields are refused by name."""
    groups = {}
    known = {f.name: f for f in dataclasses.fields(Config)}
    for name, group_values in values.items():
        if name not in known:
            raise ConfigError(f"configuration has an unknown group `{name}` (there are: {', '.join(known)})")
        group = type(getattr(Config(), name))
        names = [f.name for f in dataclasses.fields(group)]
        for key in group_values:
            if key not in names:
                raise ConfigError(
                    f"configuration group `{name}` has an unknown setting `{key}` (there are: {', '.join(names)})"
                )
        as_tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in group_values.items()}
        groups[name] = group(**as_tuples)
    return Config(**groups)
