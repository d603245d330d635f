"""CORE (DCLM, Li et al. 2024): 22 tasks in the published bundle's layout, few-shot, centred by what guessing reaches.

    BUNDLE/core.yaml                     label, file, shots, kind and delimiter of each task
    BUNDLE/eval_meta_data.csv            what guessing reaches, in per cent
    BUNDLE/eval_data/<category>/<task>.jsonl

Three kinds of task. multiple_choice: one query, several choices; schema: several contexts, one continuation; in both
the row with the smallest mean loss over its answer wins. language_modeling: every token of the answer must be the
likeliest. Seeds are those of the published evaluation (1337 for the order, 1234 + index for an item's shots), so that
scores compare.

The rows of an item share a long beginning, the shots above all; it passes through the model once and its keys and
values serve all rows. Items of one row are batched by length.

    tasks = read_tasks(bundle)
    result = core(tasks, model, tokenizer, max_per_task=500)     # result.core_v1, result.core_v2, result.tasks
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanofast.config import ConfigError
from nanofast.model import GPT, KVCache

ORDER_SEED = 1337
SHOTS_SEED = 1234  # plus the item's index
KINDS = ("multiple_choice", "schema", "language_modeling")
# Where DCLM corrected the bundle's baselines (their issues 114 and 115), in per cent. core_v1 uses the bundle's own.
CORRECTED_BASELINES = {"commonsense_qa": 40.3, "agi_eval_lsat_ar": 25.0, "bigbench_language_identification": 25.0}
BATCH_TOKENS = 8192  # of the batches of one-row items; a few rows at full length fill any device well enough
LEAST_SHARED = 8  # tokens; a shorter common beginning is not worth a pass of its own


@dataclass(frozen=True)
class Task:
    """One line of the bundle's list, with its baseline in per cent."""

    label: str
    file: Path
    kind: str
    shots: int
    delimiter: str
    baseline: float


@dataclass(frozen=True)
class Row:
    """One text of an item: the answer is `ids[start:end]`."""

    ids: list[int]
    start: int
    end: int


@dataclass(frozen=True)
class CoreResult:
    """Accuracy of each task, and the mean of the centred ones with both sets of baselines."""

    tasks: dict[str, dict[str, float]]
    core_v1: float
    core_v2: float
    token_forwards: int


def _yaml_value(text: str) -> Any:
    text = re.sub(r"\s+#.*$", "", text).strip()
    if text[:1] in ('"', "["):
        return json.loads(text)
    return text.strip("'")


def parse_task_list(text: str) -> list[dict[str, Any]]:
    """The items of `core.yaml`: a list of flat maps, which is all of YAML that the bundle uses."""
    items: list[dict[str, Any]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#") or not stripped or stripped == "icl_tasks:":
            continue
        if stripped == "-" or stripped.startswith("- "):
            items.append({})
            stripped = stripped[1:].strip()
        key, colon, value = stripped.partition(":")
        if colon and items:
            items[-1][key.strip()] = _yaml_value(value)
    return items


def read_tasks(bundle: Path) -> list[Task]:
    """The bundle's tasks with their baselines; a task without a baseline, or a file that is not there, is an error."""
    for name in ("core.yaml", "eval_meta_data.csv", "eval_data"):
        if not (bundle / name).exists():
            raise ConfigError(f"`{bundle}` has no `{name}`; expected the published evaluation bundle, unpacked")
    with (bundle / "eval_meta_data.csv").open(encoding="utf-8", newline="") as file:
        baselines = {line["Eval Task"]: float(line["Random baseline"]) for line in csv.DictReader(file)}
    tasks = []
    for item in parse_task_list((bundle / "core.yaml").read_text(encoding="utf-8")):
        label, kind, path = item["label"], item["icl_task_type"], bundle / "eval_data" / item["dataset_uri"]
        if label not in baselines:
            raise ConfigError(f"task `{label}` of core.yaml has no baseline in `{bundle / 'eval_meta_data.csv'}`")
        if kind not in KINDS:
            raise ConfigError(f"task `{label}` is of the unknown kind `{kind}` (known: {', '.join(KINDS)})")
        if not path.is_file():
            raise ConfigError(f"task `{label}` has no file `{path}`; unpack the whole bundle")
        shots = item["num_fewshot"][0]
        tasks.append(Task(label, path, kind, int(shots), item.get("continuation_delimiter", " "), baselines[label]))
    return tasks


def read_items(task: Task, max_per_task: int) -> list[dict[str, Any]]:
    """A task's items in the known order, cut to the wanted number (0: all)."""
    items = [json.loads(line) for line in task.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    random.Random(ORDER_SEED).shuffle(items)
    return items[:max_per_task] if max_per_task > 0 else items


def choose_shots(items: Sequence[dict[str, Any]], index: int, count: int) -> list[dict[str, Any]]:
    """The examples shown before item `index`: drawn from all others by a seed of its own, never more than there are."""
    others = [i for i in range(len(items)) if i != index]
    chosen = random.Random(SHOTS_SEED + index).sample(others, min(count, len(others)))
    return [items[i] for i in chosen]


def _example(task: Task, item: dict[str, Any]) -> str:
    """An item with its right answer, as a shot."""
    if task.kind == "multiple_choice":
        return f"{item['query']}{task.delimiter}{item['choices'][item['gold']]}\n\n"
    if task.kind == "schema":
        return f"{item['context_options'][item['gold']]}{task.delimiter}{item['continuation']}\n\n"
    return f"{item['context'].strip()}{task.delimiter}{item['continuation']}\n\n"


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    shortest = min(len(row) for row in rows)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def render(
    task: Task, item: dict[str, Any], shots: Iterable[dict[str, Any]], encode: Callable[[str], list[int]]
) -> list[Row]:
    """The rows of an item. `encode` puts BOS in front."""
    before = "".join(_example(task, shot) for shot in shots)
    if task.kind == "multiple_choice":
        rows = [encode(f"{before}{item['query']}{task.delimiter}{choice}") for choice in item["choices"]]
        start = min(_common(rows), min(len(row) for row in rows) - 1)  # a choice may begin another; each keeps a token
        return [Row(row, start, len(row)) for row in rows]
    if task.kind == "schema":
        rows = [
            encode(f"{before}{context}{task.delimiter}{item['continuation']}") for context in item["context_options"]
        ]
        common = _common([row[::-1] for row in rows])
        return [Row(row, max(len(row) - common, 1), len(row)) for row in rows]
    prompt = f"{before}{item['context'].strip()}{task.delimiter}"
    without, row = encode(prompt.strip()), encode(prompt + item["continuation"])
    if row[: len(without)] != without:
        raise ConfigError(
            f"task `{task.label}`: the tokens of a prompt change when its answer is added; found {prompt[-40:]!r}"
        )
    return [Row(row, len(without), len(row))]


def fit(row: Row, length: int) -> Row:
    """The row with tokens taken from its beginning, so that `length` hold it."""
    over = max(0, len(row.ids) - length)
    return Row(row.ids[over:], max(row.start - over, 1), row.end - over)


class Scorer:
    """Losses and likeliest tokens of answers; counts the tokens that passed through the model."""

    def __init__(self, model: GPT, pad_id: int) -> None:
        self.model, self.pad_id, self.token_forwards = model, pad_id, 0
        self.device = model.head.weight.device

    def _padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in rows], device=self.device)

    @torch.no_grad()
    def score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """For each row (mean loss over its answer, whether all of it was the likeliest). Rows may share a start."""
        self.model.eval()
        shared = min(_common([row.ids for row in rows]), min(row.start for row in rows) - 1) if len(rows) > 1 else 0
        cache = None
        if shared >= LEAST_SHARED:
            longest = max(len(row.ids) for row in rows)
            single = KVCache(self.model.config, 1, longest, self.device, self.model.compute_dtype)
            self.model.hidden(self._padded([rows[0].ids[:shared]]), single)
            self.token_forwards += shared
            cache = single.repeated(len(rows))
        else:
            shared = 0
        # the last token predicts nothing that is asked; padding stands behind what it could disturb
        ids_BT = self._padded([row.ids[shared:-1] for row in rows])
        self.token_forwards += ids_BT.numel()
        x_BTC = self.model.hidden(ids_BT, cache)
        return [self._judge(x_TC, row, shared) for x_TC, row in zip(x_BTC, rows, strict=True)]

    def _judge(self, x_TC: Tensor, row: Row, shared: int) -> tuple[float, bool]:
        logits_TV = self.model.logits(x_TC[row.start - 1 - shared : row.end - 1 - shared])
        answer = torch.tensor(row.ids[row.start : row.end], device=self.device)
        loss = torch.nn.functional.cross_entropy(logits_TV, answer).item()
        return loss, bool((logits_TV.argmax(dim=-1) == answer).all())


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows in batches of about equal lengths, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)):
        if batch and (len(batch) + 1) * len(rows[batch[0]].ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def accuracy(
    task: Task, items: Sequence[dict[str, Any]], indices: Sequence[int], scorer: Scorer, tokenizer: Any
) -> int:
    """How many of the items at `indices` are answered rightly."""

    def encode(text: str) -> list[int]:
        return [tokenizer.bos_id, *(int(i) for i in tokenizer.encode(text))]

    length = scorer.model.config.sequence_length
    rendered = [
        [fit(row, length) for row in render(task, items[i], choose_shots(items, i, task.shots), encode)]
        for i in indices
    ]
    if task.kind == "language_modeling":
        single = [rows[0] for rows in rendered]
        return sum(right for batch in _batches(single) for _, right in scorer.score([single[i] for i in batch]))
    right = 0
    for i, rows in zip(indices, rendered, strict=True):
        losses = [loss for loss, _ in scorer.score(rows)]
        right += losses.index(min(losses)) == items[i]["gold"]
    return right


def centred(accuracy: float, baseline_percent: float) -> float:
    """0 where guessing gets, 1 where all is right."""
    baseline = baseline_percent / 100.0
    return (accuracy - baseline) / (1.0 - baseline)


def core(
    tasks: Sequence[Task],
    model: GPT,
    tokenizer: Any,
    *,
    max_per_task: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> CoreResult:
    """Score all tasks; items are shared out over the ranks, and every rank gets the same result."""
    from nanofast.distributed import rank_and_world_size, sum_over_ranks

    rank, world_size = rank_and_world_size()
    scorer = Scorer(model, tokenizer.bos_id)
    results: dict[str, dict[str, float]] = {}
    for task in tasks:
        items = read_items(task, max_per_task)
        right = accuracy(task, items, range(rank, len(items), world_size), scorer, tokenizer)
        total = sum_over_ranks(torch.tensor([float(right)], device=scorer.device)).item()
        share = total / max(len(items), 1)
        v2 = CORRECTED_BASELINES.get(task.label, task.baseline)
        results[task.label] = {
            "accuracy": share,
            "centered": centred(share, task.baseline),
            "centered_v2": centred(share, v2),
        }
        centre = results[task.label]["centered"]
        tell(f"{task.label:<36} {len(items):>6} items  accuracy {share:.4f}  centred {centre:.4f}")
    means = {key: sum(r[key] for r in results.values()) / max(len(results), 1) for key in ("centered", "centered_v2")}
    return CoreResult(results, means["centered"], means["centered_v2"], scorer.token_forwards)
