"""Mid-training and SFT as a user runs them: stages from a checkpoint, grown vocabularies, tasks, and talking to it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import nanofast
from chat_shards import write_jsonl, write_parquet
from chat_twin import nanochat_tokenizer, random_conversations
from nanofast import chat, checkpoint
from nanofast.chat_tasks import Question, Task, ask, read_task
from nanofast.chat_template import CHATML, NANOCHAT
from nanofast.config import ConfigError, OptimizerSettings
from nanofast.conversations import data_sets, spelled
from nanofast.evaluate import evaluate
from nanofast.model import GPT, GPTConfig
from nanofast.optim import Optimizers
from nanofast.report import write_report
from nanofast.runlog import read_log
from nanofast.saved import load_model
from nanofast.start import grown, load_weights, warm_start
from nanofast.train import run as train
from resumed import following
from test_epochs import run as run_ranks

SMALL = [
    *("--depth=1", "--n-embd=32", "--sequence-length=48", "--total-batch-size=384", "--device-batch-size=2"),
    *("--eval-tokens=768", "--sample-tokens=8", "--eval-every=0", "--sample-every=0", "--dtype=float32"),
    *("--torch-threads=1", "--loader-threads=1", "--no-report"),
]
KEPT = SMALL[5:]  # what a stage inherits is left out


@pytest.fixture(scope="module")
def base(sample_corpus: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on text, with a vocabulary that knows no conversations."""
    run_dir = tmp_path_factory.mktemp("base") / "run"
    data, tokenizer = map(str, sample_corpus)
    words = ["--data", data, "--tokenizer", tokenizer, "--run", str(run_dir), "--num-iterations=2", *SMALL]
    assert train(words) == 0
    return run_dir


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Conversations to train on, and to validate on."""
    folder = tmp_path_factory.mktemp("chat")
    return (
        write_parquet(folder / "train.parquet", random_conversations(1, 60, num_words=6)),
        write_jsonl(folder / "val.jsonl", random_conversations(2, 20, num_words=6)),
    )


def entries(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in read_log(run_dir) if entry["kind"] == kind]


def test_stages_go_on_from_one_another(base: Path, data: tuple[Path, Path], tmp_path: Path, capsys: Any):
    task = tmp_path / "letters.jsonl"
    task.write_text(json.dumps({"question": "1 + 1?", "choices": ["1", "2"], "answer": 1}))
    words = ["--data", str(data[0]), "--val-data", str(data[1]), *KEPT, "--num-iterations=3"]
    middle, last = tmp_path / "middle", tmp_path / "last"
    begin = ["midtrain", "--from", str(base), "--run", str(middle), "--template", "chatml", *words]
    assert train(begin) == 2
    told = capsys.readouterr().err
    assert "lacks special tokens of the template `chatml`: <|im_start|>, <|im_end|>" in told
    assert "--add-special-tokens" in told
    assert train([*begin, "--add-special-tokens"]) == 0
    more = ["--tasks", str(task), "--questions", "hi", "there"]
    assert train(["sft", "--from", str(middle), "--run", str(last), *more, *words]) == 0
    for run_dir, stage, before in ((middle, "midtrain", base), (last, "sft", middle)):
        (begun,) = entries(run_dir, "run")
        assert begun["stage"] == stage
        assert begun["begun_from"].startswith(str(before))
        assert begun["config"]["model"]["n_embd"] == 32
        assert len(entries(run_dir, "step")) == 3
        (validation,) = entries(run_dir, "validation")
        assert 0 < validation["tokens"] < 768, "only learned targets count"
        assert validation["bpb"] > 0
    first_rate = entries(base, "run")[0]["config"]["optimizer"]["matrix_lr"]
    rates = [entries(run_dir, "run")[0]["config"]["optimizer"]["matrix_lr"] for run_dir in (middle, last)]
    assert rates == [first_rate * 0.5, first_rate * 0.5 * 0.25]
    ledgers = [entries(run_dir, "ledger")[-1]["ledger"] for run_dir in (middle, last)]
    assert ledgers[0]["masked"] == ledgers[0]["padding"] == 0, "one stream, learned whole"
    assert ledgers[1]["masked"] > 0
    assert [entry["prompt"] for entry in entries(last, "sample")] == ["hi", "there"]
    page = write_report(last).read_text("utf-8")
    assert "Questions with known answers" in page
    assert "<b>hi</b>\n" in page
    (score,) = entries(last, "task")
    assert (score["task"], score["num_questions"], score["chance"]) == ("letters", 1, 0.5)
    settings = nanofast.evaluate.EvaluateSettings(model=str(last), tokens=768, tasks=(str(task),))  # type: ignore[attr-defined]
    found = evaluate(settings)
    assert found["bpb"] == entries(last, "validation")[0]["bpb"]
    assert found["questions"][0]["num_questions"] == 1
    saved = load_model(str(last), None, "cpu")
    assert set(CHATML.special_tokens) <= set(saved.tokenizer.special_tokens)

    conversation = chat.Conversation(saved.model, saved.tokenizer, CHATML, chat.ChatCommandSettings(num_tokens=4))
    shown: list[str] = []
    chat.talk(conversation, ["/context", "hi", "/tokens", "/context", "/new", "/x", "/quit", "never"], shown.append)
    text = "".join(shown)
    assert text.startswith("0 of 48 tokens used (0%), 0 messages")
    assert "'<|im_start|>' 'user" in text or "'<|im_start|>' 'us" in text
    assert "2 messages" in text
    assert text.endswith(chat.HELP + "\n")
    assert conversation.messages == []
    chat.talk(conversation, ["word " * 60], shown.append)
    assert "the model's context holds 48; begin another one (/new)" in shown[-1]
    assert conversation.messages == []


def test_an_interrupted_stage_goes_on_exactly(base: Path, data: tuple[Path, Path], tmp_path: Path):
    words = ["--data", f"{data[0]}:2", "--val-data", str(data[1]), *KEPT, "--add-special-tokens", "--eval-every=-1"]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    begin = ["sft", "--from", str(base), *words, "--num-iterations=6", "--save-every=3"]
    assert train([*begin, "--run", str(whole)]) == 0
    assert train([*begin, "--run", str(halved)]) == 0
    for later in (halved / "checkpoints").glob("step_*6"):
        (later / checkpoint.MANIFEST).unlink()  # as if it had been killed before the last one was whole
    assert train(["sft", "--resume", str(halved)]) == 0
    steps = [{e["step"]: e["loss"] for e in entries(run_dir, "step")} for run_dir in (whole, halved)]
    assert steps[0] == steps[1]
    assert [entry["resumed_from"] is not None for entry in entries(halved, "run")] == [False, True]


def test_the_demo_runs_to_its_end(base: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import chat_demo

    documented = list(itertools.islice(chat_demo.documented(), 60))
    monkeypatch.setattr(chat_demo, "documented", lambda: documented)
    assert chat_demo.main([str(base)], steps=2) == 0
    told = capsys.readouterr().out
    assert told.count("> Who are you?") == 2, "asked before and after"
    assert "80 conversations from 60 docstrings" in told
    (score,) = entries(tmp_path / "runs" / "chat-demo-sft", "task")
    assert (score["task"], score["num_questions"]) == ("modules", 60)


def test_one_pass_is_the_horizon_where_none_is_given(
    base: Path, data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--val-data", str(data[1]), *KEPT, "--add-special-tokens", "--dry-run"]

    def steps(named: str) -> int:
        assert train(["sft", "--from", str(base), "--data", named, *words]) == 0
        return int(capsys.readouterr().out.split("horizon")[1].split()[0].replace(",", ""))

    once = steps(str(data[0]))
    assert once > 3
    assert abs(steps(f"{data[0]}:3") - 3 * once) <= 2
    assert steps(f"a={data[0]}:0.5,b={data[1]}:0.5") > once


def test_conversations_and_text_are_mixed_by_weight(base: Path, data: tuple[Path, Path], tmp_path: Path):
    text = tmp_path / "text.parquet"
    pq.write_table(pa.table({"text": [f"document {index} " * 9 for index in range(99)]}), text)
    words = ["--val-data", str(data[1]), *KEPT, "--add-special-tokens", "--num-iterations=3", "--eval-every=-1"]
    named = f"chat={data[0]}:1,text={text}:3"
    run_dir = tmp_path / "run"
    assert train(["midtrain", "--from", str(base), "--data", named, "--run", str(run_dir), *words]) == 0
    shares = entries(run_dir, "ledger")[-1]["loader"]["shares"]
    assert shares["text"]["trained"] > shares["chat"]["trained"] > 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sft"], "sft begins from a checkpoint; pass --from"),
        (["sft", "--from", "BASE"], "no conversations are named; pass --data"),
        (["sft", "--from", "BASE", "--data", "nowhere.jsonl"], "no such file or folder"),
        (["sft", "--from", "nowhere"], "nothing to resume in"),
        (["sft", "--from", "BASE", "--data", "DATA", "--template", "alpaca"], "template = `alpaca`"),
        (["midtrain", "--from", "BASE", "--data", "DATA", "--n-embd", "64"], "leave the settings of the model"),
        (["sft", "--from", "BASE", "--data", "DATA", "--overflow", "carry"], "overflow = `carry`: conversations"),
        (
            ["sft", "--from", "BASE", "--data", "DATA", "--tasks", "nowhere.jsonl"],
            "task `nowhere.jsonl` cannot be read",
        ),
        (["finetune"], "there are: pretrain, midtrain, sft"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str], complaint: str, base: Path, data: tuple[Path, Path], tmp_path: Path, capsys: Any
):
    named = {"BASE": str(base), "DATA": f"{data[0]},{data[1]}"}
    words = [named.get(word, word) for word in words]
    more = ["--add-special-tokens", "--num-iterations=1", "--run", str(tmp_path / "run")]
    assert train([*words, *(more if words[1:] else [])]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert complaint in told
    assert told.count("\n") == 1


def test_names_of_data_sets_with_their_counts(tmp_path: Path):
    found = data_sets(f"{tmp_path}/a.jsonl,{tmp_path}/b*.parquet:2, {tmp_path}/a.jsonl:3")
    assert found == {f"{tmp_path}/a.jsonl": 4, f"{tmp_path}/b*.parquet": 2}
    assert data_sets(spelled(found)) == found
    with pytest.raises(ConfigError, match="names no conversations"):
        data_sets(" , ")


# ---- a vocabulary that grows -------------------------------------------------------------------------------


def tiny_model(vocab_size: int) -> GPT:
    model = GPT(GPTConfig(vocab_size=vocab_size, sequence_length=16, n_layer=1, n_head=2, n_embd=16))
    model.initialize(torch.Generator().manual_seed(vocab_size))
    return model


def test_a_grown_model_says_of_the_old_vocabulary_what_it_said_before():
    old, grown_model = tiny_model(60), tiny_model(130)
    torch.nn.init.normal_(old.head.weight)
    load_weights(grown_model, dict(old.state_dict()), 60)
    ids = torch.randint(0, 60, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grown_model(ids)[..., :60], old(ids)[..., :60])
    rows = grown_model.head.weight[60:]
    torch.testing.assert_close(rows, old.head.weight[:60].mean(dim=0).expand_as(rows))
    assert not torch.equal(grown_model.embedding.weight[60], grown_model.embedding.weight[61])
    with pytest.raises(ConfigError, match="leave the settings of the model"):
        grown("head.weight", torch.zeros(60, 8), torch.zeros(130, 16), 60)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_warm_optimizer_goes_on_where_it_was(kind: Literal["muon", "adamw"]):
    """Of a vocabulary that did not grow, the next step is the one that would have followed; new rows begin at zero."""
    settings = OptimizerSettings(optimizer=kind, matrix_lr=0.02, embedding_lr=0.1, head_lr=0.01)
    ids = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))

    def step(model: GPT, optimizers: Optimizers) -> None:
        optimizers.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:])[0].backward()
        optimizers.finish_gradients(torch.tensor(1.0), 1.0)
        optimizers.step()

    old = tiny_model(64)
    optimizers = Optimizers(old, settings)
    step(old, optimizers)
    weights = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in optimizers.state_tensors().items()}
    step(old, optimizers)
    same, larger = tiny_model(64), tiny_model(130)
    for model in (same, larger):
        load_weights(model, weights, 64)
        warm = Optimizers(model, settings)
        warm_start(warm, model, state | {"rng/cpu": torch.zeros(3)})
        found = warm.state_tensors()
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            known = found[name][: len(tensor)] if tensor.ndim else found[name]
            torch.testing.assert_close(known, tensor, rtol=0, atol=0)
            assert not (tensor.ndim and found[name][len(tensor) :].any()), f"{name}: new rows begin at zero"
        step(model, warm)
    for name, tensor in old.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, rtol=0, atol=0)
    assert all(tensor.isfinite().all() for tensor in larger.state_dict().values())


def test_a_stage_takes_the_optimizer_over_when_asked(
    base: Path, data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--data", str(data[0]), "--val-data", str(data[1]), *KEPT, "--add-special-tokens", "--eval-every=-1"]
    begin = ["midtrain", "--from", str(base), "--num-iterations=2", "--warmdown-ratio=0.0", *words]
    losses = []
    for name, more in (("cold", []), ("warm", ["--warm-optimizer"])):
        assert train([*begin, "--run", str(tmp_path / name), *more]) == 0
        losses.append([entry["loss"] for entry in entries(tmp_path / name, "step")])
    assert losses[0][0] == losses[1][0], "the same weights and data"
    assert losses[0][1] != losses[1][1], "moved by other momenta"
    capsys.readouterr()
    run_dir = tmp_path / "other"
    assert train([*begin, "--run", str(run_dir), "--warm-optimizer", "--optimizer", "adamw"]) == 2
    told = capsys.readouterr().err
    assert "takes over the state of `muon`, and this stage moves its matrices by `adamw`" in told
    assert not run_dir.exists()


# ---- tasks -------------------------------------------------------------------------------------------------


class Oracle:
    """Says one answer to everything: its tokens, then the end."""

    def __init__(self, tokenizer: nanofast.Tokenizer, says: str) -> None:
        self.config = GPTConfig(vocab_size=tokenizer.vocab_size, sequence_length=128, n_layer=1, n_head=1, n_embd=8)
        self.says = [*tokenizer.encode(says).tolist(), tokenizer.special_tokens["<|assistant_end|>"]]
        self.head = torch.nn.Linear(1, 1)
        self.compute_dtype = torch.float32
        self.start = tokenizer.special_tokens["<|assistant_start|>"]
        self.step = 0

    def __call__(self, ids_BT: torch.Tensor, cache: Any = None) -> torch.Tensor:
        self.step = 0 if int(ids_BT[0, -1]) == self.start else self.step + 1
        logits = torch.zeros(1, ids_BT.size(1), self.config.vocab_size)
        logits[:, -1, self.says[min(self.step, len(self.says) - 1)]] = 1.0
        return logits


def test_tasks_are_scored_by_letter_and_by_exact_match():
    tokenizer = nanochat_tokenizer()
    choices = ("one", "two", "three")
    letters = Task("letters", tuple(Question("which?", letter, choices) for letter in "CACB"))
    score = ask(Oracle(tokenizer, "C"), tokenizer, NANOCHAT, letters)  # type: ignore[arg-type]
    assert (score.accuracy, score.chance, score.num_questions) == (0.5, pytest.approx(1 / 3), 4)
    words = Task("words", (Question("2 + 2?", "Four"), Question("2 + 2?", "five"), Question("long " * 200, "four")))
    score = ask(Oracle(tokenizer, " four "), tokenizer, NANOCHAT, words)  # type: ignore[arg-type]
    assert (score.accuracy, score.chance, score.num_too_long) == (pytest.approx(1 / 3), 0.0, 1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: "),
        ('{"question": "x"}', "'answer'"),
        ('{"question": "x", "answer": 3}', "answer is no text"),
        ('{"question": "x", "choices": ["a"], "answer": 0}', "1 choices"),
        ('{"question": "x", "choices": ["a", "b"], "answer": 2}', "no place among 2"),
    ],
)
def test_a_line_that_is_no_question_is_refused(line: str, complaint: str, tmp_path: Path):
    path = tmp_path / "task.jsonl"
    path.write_text(f'{{"question": "x", "answer": "y"}}\n{line}\n')
    with pytest.raises(ConfigError) as refused:
        read_task(path)
    assert complaint in str(refused.value)
    assert "line 2" in str(refused.value)


# ---- ranks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, {"packing": "concat"}, {"packing": "one_per_row", "drop_last": True}])
def test_ranks_with_uneven_conversations_end_together(changed: dict[str, Any], tmp_path: Path):
    counts = (9, 1, 30, 2)
    paths = [
        str(write_parquet(tmp_path / f"{index}.parquet", random_conversations(index, count)))
        for index, count in enumerate(counts)
    ]
    settings = {"batch_size": 2, "sequence_length": 40, "epochs": 2, "unit_documents": 0, "lanes": 4, **changed}
    with nanofast.ChatLoader(paths, nanochat_tokenizer(), **settings) as loader:
        names = following(loader, 100_000)
    found = run_ranks(tmp_path, 2, {"data": paths, "settings": settings, "chat": True})
    for rank in range(2):
        expected = [name for number, name in enumerate(names) if number % 4 % 2 == rank]
        assert found[rank]["names"] == expected
    assert len(found[0]["names"]) == len(found[1]["names"]) > 2


def test_a_micro_batch_without_a_learned_target_weighs_nothing(tmp_path: Path):
    """The padding of a lane that ended before the others: no NaN, and the step's loss is that of the other batches."""
    path = write_parquet(tmp_path / "a.parquet", random_conversations(3, 17), row_group_size=9)
    options: dict[str, Any] = {"epochs": 1, "lanes": 2, "unit_documents": 0, "packing": "one_per_row"}
    with nanofast.ChatLoader(path, nanochat_tokenizer(), 2, 48, **options) as loader:
        batches = list(itertools.islice(loader, 100))
    padding = [targets for _, targets in batches if not (targets >= 0).any()]
    assert len(padding) == 1
    model = tiny_model(50304)
    for _, targets in batches:
        inputs = torch.zeros_like(targets)[:, :16]
        loss, loss_BT = model.loss(inputs, targets[:, :16])
        assert loss.isfinite()
        assert loss_BT.isfinite().all()
