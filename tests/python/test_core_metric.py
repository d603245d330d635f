"""CORE on a small bundle of our own: answers known, seeds kept, shared beginnings computed once."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from nanofast.config import ConfigError
from nanofast.core_metric import (
    CORRECTED_BASELINES,
    Row,
    Scorer,
    Task,
    accuracy,
    centred,
    choose_shots,
    core,
    fit,
    parse_task_list,
    read_items,
    read_tasks,
    render,
)
from nanofast.model import GPT, GPTConfig
from stand_in import BOS, ByteTokenizer

YAML = """icl_tasks:
-
  label: colours
  dataset_uri: words/colours.jsonl # ours
  num_fewshot: [2]
  icl_task_type: multiple_choice
  continuation_delimiter: "\\nAnswer: " # before the answer
  has_categories: true
-
  label: why
  dataset_uri: words/why.jsonl
  num_fewshot: [0]
  icl_task_type: schema
-
  label: next
  dataset_uri: words/next.jsonl
  num_fewshot: [3]
  icl_task_type: language_modeling
  continuation_delimiter: ' '
"""
COLOURS = ["red", "green", "blue", "grey"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "eval_data" / "words"
    folder.mkdir(parents=True)
    things = random.Random(0)
    colours = [
        {"query": f"Question: the colour of thing {i} is", "choices": COLOURS, "gold": things.randrange(1, 4)}
        for i in range(12)
    ]
    why = [
        {
            "context_options": [f"The dog {i} slept, it", f"The dog {i} ran for an hour, so it"],
            "continuation": "was hungry.",
            "gold": 1,
        }
        for i in range(6)
    ]
    following = [{"context": f" After {i} comes ", "continuation": str(i + 1)} for i in range(12)]
    for name, items in (("colours", colours), ("why", why), ("next", following)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "core.yaml").write_text(YAML)
    header = "Eval Task,Task Category,Task Type,#shots,#datapoints,Random baseline,Centered Metric?,Description\n"
    lines = [f"{name},words,x,0,12,{baseline},yes,\n" for name, baseline in (("colours", 25), ("why", 50), ("next", 0))]
    (tmp_path / "eval_meta_data.csv").write_text(header + "".join(lines))
    return tmp_path


def encode(text: str) -> list[int]:
    return [BOS, *text.encode()]


def model(seed: int = 0, length: int = 512) -> GPT:
    made = GPT(GPTConfig(vocab_size=257, sequence_length=length, n_layer=2, n_head=2, n_embd=32))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return made.eval()


class Oracle(Scorer):
    """Knows the right texts of a bundle: their answers cost nothing, all others much. Or the other way round."""

    def __init__(self, right: set[tuple[int, ...]], is_wrong: bool = False) -> None:
        super().__init__(model(), BOS)
        self.right, self.is_wrong = right, is_wrong

    def score(self, rows: Any) -> list[tuple[float, bool]]:
        found = [(tuple(row.ids) in self.right) != self.is_wrong for row in rows]
        return [(0.0 if is_right else 9.0, is_right) for is_right in found]


def right_texts(task: Task, items: list[dict[str, Any]]) -> set[tuple[int, ...]]:
    found = set()
    for i, item in enumerate(items):
        rows = render(task, item, choose_shots(items, i, task.shots), encode)
        found.add(tuple(rows[item.get("gold", 0)].ids))
    return found


def test_reads_the_published_layout(bundle: Path) -> None:
    colours, why, following = read_tasks(bundle)
    assert (colours.label, colours.kind, colours.shots) == ("colours", "multiple_choice", 2)
    assert colours.delimiter == "\nAnswer: "
    assert (why.kind, why.shots, why.delimiter, why.baseline) == ("schema", 0, " ", 50.0)
    assert (following.kind, following.shots, following.delimiter) == ("language_modeling", 3, " ")


def test_parses_lists_written_either_way() -> None:
    assert parse_task_list("icl_tasks:\n- label: a\n  num_fewshot: [10]\n-\n  label: b\n") == [
        {"label": "a", "num_fewshot": [10]},
        {"label": "b"},
    ]


def test_an_oracle_scores_one_and_its_opposite_nothing(bundle: Path) -> None:
    for task in read_tasks(bundle):
        items = read_items(task, 0)
        indices = range(len(items))
        right = right_texts(task, items)
        assert accuracy(task, items, indices, Oracle(right), ByteTokenizer()) == len(items)
        assert accuracy(task, items, indices, Oracle(right, is_wrong=True), ByteTokenizer()) == 0


def test_ties_go_to_the_first_choice_so_they_cannot_look_right(bundle: Path) -> None:
    colours = read_tasks(bundle)[0]
    items = read_items(colours, 0)
    assert all(item["gold"] > 0 for item in items)
    assert accuracy(colours, items, range(len(items)), Oracle(set()), ByteTokenizer()) == 0


def naive(made: GPT, row: Row) -> tuple[float, bool]:
    """One row at a time, the whole of it, loss by hand."""
    logits = made(torch.tensor([row.ids[:-1]]))[0].double()
    targets = row.ids[row.start : row.end]
    span = logits[row.start - 1 : row.end - 1].log_softmax(-1)
    losses = [-span[i, target].item() for i, target in enumerate(targets)]
    return sum(losses) / len(losses), span.argmax(-1).tolist() == targets


def test_shared_beginnings_change_no_answer_and_save_two_thirds_of_the_work(bundle: Path) -> None:
    """Every kind of row against a pass of its own; the choices of an item cost little more than one of them."""
    made = model()
    one_by_one = with_sharing = 0
    for task in read_tasks(bundle):
        items = read_items(task, 0)
        for i, item in enumerate(items):
            rows = render(task, item, choose_shots(items, i, task.shots), encode)
            scorer = Scorer(made, BOS)
            for (loss, is_right), row in zip(scorer.score(rows), rows, strict=True):
                expected = naive(made, row)
                assert loss == pytest.approx(expected[0], rel=1e-4)
                assert is_right == expected[1]
            if task.kind == "multiple_choice":
                one_by_one += len(rows) * max(len(row.ids) for row in rows)
                with_sharing += scorer.token_forwards
    assert one_by_one >= 3 * with_sharing


def test_batches_of_unequal_lengths_change_no_answer() -> None:
    made = model()
    generator = random.Random(1)
    rows = []
    for length in (5, 40, 17, 80, 33):
        ids = [BOS, *(generator.randrange(256) for _ in range(length))]
        rows.append(Row(ids, length - 2, length + 1))
    for (loss, _), row in zip(Scorer(made, BOS).score(rows), rows, strict=True):
        assert loss == pytest.approx(naive(made, row)[0], rel=1e-4)


def test_the_answer_of_each_kind_is_where_it_should_be(bundle: Path) -> None:
    colours, why, following = read_tasks(bundle)
    (item, *_) = read_items(why, 0)
    rows = render(why, item, [], encode)
    assert len({len(row.ids) for row in rows}) == 2
    assert [bytes(row.ids[row.start : row.end]) for row in rows] == [b" it was hungry."] * 2
    (item, *_) = read_items(following, 0)
    (row,) = render(following, item, [], encode)
    assert bytes(row.ids[row.start : row.end]).strip() == item["continuation"].encode()
    assert bytes(row.ids[1:]).startswith(b"After")
    (item, *_) = read_items(colours, 0)
    rows = render(colours, item, [], encode)
    assert [bytes(row.ids[row.start : row.end]).decode() for row in rows] == COLOURS


def test_a_choice_that_begins_another_is_still_scored() -> None:
    task = Task("t", Path(), "multiple_choice", 0, " ", 0.0)
    rows = render(task, {"query": "q", "choices": ["no", "not now"], "gold": 1}, [], encode)
    assert [bytes(row.ids[row.start : row.end]) for row in rows] == [b"o", b"ot now"]
    assert all(math.isfinite(loss) for loss, _ in Scorer(model(), BOS).score(rows))


def test_a_tokenizer_that_merges_across_the_delimiter_is_told() -> None:
    def merging(text: str) -> list[int]:
        return [BOS, *(text.replace("is 4", "\x01").encode())]

    task = Task("sums", Path(), "language_modeling", 0, " ", 0.0)
    with pytest.raises(ConfigError, match="task `sums`: the tokens of a prompt change"):
        render(task, {"context": "2 + 2 is", "continuation": "4"}, [], merging)


def test_long_rows_lose_their_beginning() -> None:
    row = Row([BOS, *range(100)], 90, 101)
    fitted = fit(row, 40)
    assert len(fitted.ids) == 40
    assert fitted.ids[fitted.start : fitted.end] == row.ids[90:101]


def test_more_shots_than_examples_takes_what_there_is() -> None:
    items = [{"n": i} for i in range(4)]
    shots = choose_shots(items, 2, 10)
    assert sorted(shot["n"] for shot in shots) == [0, 1, 3]
    assert choose_shots(items, 2, 10) == shots
    assert choose_shots(items[:1], 0, 10) == []


def test_order_and_shots_follow_the_published_seeds(bundle: Path) -> None:
    task = read_tasks(bundle)[0]
    plain = [json.loads(line) for line in task.file.read_text().splitlines()]
    expected = list(plain)
    random.Random(1337).shuffle(expected)
    assert read_items(task, 5) == expected[:5]
    others = [i for i in range(5) if i != 3]
    assert choose_shots(expected[:5], 3, 2) == [expected[i] for i in random.Random(1237).sample(others, 2)]


def test_centring_arithmetic() -> None:
    """22 accuracies by hand: 10 tasks of baseline 25 at 0.4, 6 of 50 at 0.65, 6 of 0 at 0.1."""
    table = [(0.4, 25.0)] * 10 + [(0.65, 50.0)] * 6 + [(0.1, 0.0)] * 6
    expected = (10 * 0.2 + 6 * 0.3 + 6 * 0.1) / 22
    assert sum(centred(a, b) for a, b in table) / 22 == pytest.approx(expected)
    assert centred(0.25, 25.0) == 0.0
    assert centred(1.0, 62.0) == pytest.approx(1.0)
    assert centred(0.2, 25.0) < 0


def test_both_baselines_are_reported(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRECTED_BASELINES, "colours", 40.0)
    result = core(read_tasks(bundle), model(), ByteTokenizer(), max_per_task=4)
    assert set(result.tasks) == {"colours", "why", "next"}
    found = result.tasks["colours"]
    assert found["centered"] == pytest.approx(centred(found["accuracy"], 25.0))
    assert found["centered_v2"] == pytest.approx(centred(found["accuracy"], 40.0))
    assert result.core_v1 != result.core_v2
    assert result.token_forwards > 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("core.yaml", "has no `core.yaml`"),
        ("eval_data/words/why.jsonl", "task `why` has no file"),
        ("baseline", "task `next` of core.yaml has no baseline"),
    ],
)
def test_an_incomplete_bundle_is_refused_by_name(bundle: Path, damage: str, message: str) -> None:
    if damage == "baseline":
        path = bundle / "eval_meta_data.csv"
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("next")))
    else:
        (bundle / damage).unlink()
    with pytest.raises(ConfigError, match=message):
        read_tasks(bundle)
