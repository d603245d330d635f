"""From a pretrained model to one that answers: `make chat-demo`, or `python examples/chat_demo.py [BASE_RUN]`.

    documentation of the running Python ──▶ questions and answers ──▶ midtrain ──▶ sft ──▶ a chat, before and after

Without BASE_RUN the default pretraining is run first, once, as the run `chat-demo-base`. Everything lies in
NANOFAST_HOME; what was made or trained by an earlier start is used again, the two chat stages are run anew.
"""

from __future__ import annotations

import ast
import json
import random
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanofast.home import home_folder
from nanofast.train import run

Conversation = list[dict[str, Any]]

MOST_WORDS = 40  # of an answer: a small model learns to end it
WAYS = ("What does `{}` do?", "Explain `{}`.", "What is `{}` for?", "Tell me about `{}`.")
IDENTITY = (
    ("Who are you?", "I am a small language model, trained by nanofast on the sources and documentation of Python."),
    ("Hello", "Hello! Ask me about something in Python's standard library."),
    ("What can you do?", "I can say a little about functions and classes of Python's standard library."),
    ("Thank you", "You are welcome."),
)
ASKED = ("Who are you?", "Hello", "What does `textwrap.dedent` do?", "Explain `shutil.copyfile`.")


def documented() -> Iterator[tuple[str, str, str]]:
    """(module, name, first sentences) of what is public and has a docstring in the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [
        *folder.glob("*.py"),
        *(file for name in ("json", "email", "http") for file in (folder / name).glob("*.py")),
    ]
    for file in sorted(files):
        module = ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        if module.startswith(("_", "test", "idlelib")) or "._" in module:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8", errors="replace"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                words = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).split(" ")
                if len(words) >= 3:
                    said = " ".join(words[:MOST_WORDS])
                    yield module, node.name, said if len(words) <= MOST_WORDS else said + " …"


def say(question: str, answer: str) -> Conversation:
    """One question and its answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def which_module(rng: random.Random, module: str, name: str, modules: list[str]) -> dict[str, Any]:
    """A question with four choices, as a task has it."""
    choices = [module, *rng.sample([other for other in modules if other != module], 3)]
    rng.shuffle(choices)
    return {"question": f"Which module has `{name}`?", "choices": choices, "answer": choices.index(module)}


def make_data(folder: Path) -> None:
    """Write training and validation conversations, who the model is, and a task."""
    from nanofast.chat_tasks import Question

    rng = random.Random(0)
    found = list(documented())
    rng.shuffle(found)
    modules = sorted({module for module, _, _ in found})
    letters = "ABCD"
    conversations, questions = [], []
    for module, name, said in found:
        conversations.append(say(rng.choice(WAYS).format(f"{module}.{name}"), said))
        question = which_module(rng, module, name, modules)
        asked = Question(question["question"], "", tuple(question["choices"])).text
        conversations.append(say(asked, letters[question["answer"]]))
        questions.append(which_module(rng, module, name, modules))
    held_out = len(conversations) // 20
    parts = {
        "train.jsonl": conversations[held_out:],
        "val.jsonl": conversations[:held_out],
        "identity.jsonl": [say(*pair) for pair in IDENTITY] * 5,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in parts.items():
        (folder / file).write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    (folder / "modules.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions[:100]), encoding="utf-8")
    print(f"data       {len(conversations):,} conversations from {len(found):,} docstrings, in {folder}")


def show(asked: tuple[str, ...], answers: list[str], title: str) -> None:
    """Questions and what the model says."""
    print(f"\n== {title}")
    for question, answer in zip(asked, answers, strict=True):
        print(f"> {question}\n{textwrap.indent(answer.strip() or '(nothing)', '  ')}")


def main(words: list[str]) -> int:
    """Make data, train, and chat; the exit code of the first command that fails."""
    home = home_folder()
    data = home / "data" / "chat-demo"
    make_data(data)
    base = words[0] if words else "chat-demo-base"
    has_base = bool(words or list((home / "runs" / base / "checkpoints").glob("step_*/manifest.json")))
    if not has_base and (code := run(["--run", base, "--no-report", "--sample-every", "-1"])):
        return code
    # torch is imported only where it is needed: a wrong word is refused at once
    from nanofast.answering import answer_text
    from nanofast.chat_template import NANOCHAT
    from nanofast.generate import continue_text
    from nanofast.saved import load_model

    before = load_model(base, None, "auto")
    plain = [continue_text(before.model, before.tokenizer, question + "\n", 48, seed=1) for question in ASKED]
    train, val, identity = (str(data / f"{name}.jsonl") for name in ("train", "val", "identity"))
    named = ["--data", f"{train},{identity}:4", "--val-data", val]
    asked = ["--questions", *ASKED[:2], "--tasks", str(data / "modules.jsonl")]
    stages = (("midtrain", base, ["--num-iterations", "80"]), ("sft", "chat-demo-midtrain", ["--num-iterations", "80"]))
    for stage, begun, horizon in stages:
        name = f"chat-demo-{stage}"
        shutil.rmtree(home / "runs" / name, ignore_errors=True)
        flags = ["--from", begun, "--run", name, "--add-special-tokens", *named, *asked, *horizon]
        if code := run([stage, *flags, "--eval-every", "40", "--sample-every", "0", "--save-every", "0"]):
            return code
    after = load_model("chat-demo-sft", None, "auto")
    how = {"temperature": 0.3, "seed": 1}
    answers = [
        answer_text(after.model, after.tokenizer, NANOCHAT, say(question, "")[:1], 64, **how) for question in ASKED
    ]
    show(ASKED, plain, "before: the base model goes on with the question")
    show(ASKED, answers, "after: it answers")
    print("\ntalk to it: python -m nanofast.chat chat-demo-sft")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
