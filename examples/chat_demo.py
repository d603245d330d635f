"""From a pretrained model to one that answers: `make chat-demo`, or `python examples/chat_demo.py [BASE_RUN]`.

    documentation of the running Python ──▶ questions and answers ──▶ midtrain ──▶ sft ──▶ a chat, before and after

Without BASE_RUN the default pretraining is run first, once, as the run `chat-demo-base`; one that was interrupted goes
on. Everything lies in NANOFAST_HOME; the two chat stages are run anew each time.
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

from nanofast.command import exit_code
from nanofast.home import home_folder
from nanofast.train import run

Conversation = list[dict[str, Any]]

BASE = "chat-demo-base"
STEPS = 80  # of either chat stage: about three passes
MOST_WORDS = 40  # of an answer: a small model learns to end it
WAYS = ("What does `{}` do?", "Explain `{}`.", "What is `{}` for?", "Tell me about `{}`.")
GREETING = "Hello! Ask me about something in Python's standard library."
WHO = "I am a small language model, trained by nanofast on the sources and documentation of Python."
CAN = "I can say a little about functions and classes of Python's standard library."
IDENTITY = {  # what is said to all of these
    WHO: ("Who are you?", "What are you?", "Are you a person?", "Tell me about yourself.", "Who made you?"),
    GREETING: ("Hello", "Hi", "Hello!", "Good morning", "Hey there"),
    CAN: ("What can you do?", "How can you help me?", "What do you know?"),
    "You are welcome.": ("Thank you", "Thanks!", "Thank you very much."),
}
IDENTITY_TIMES = 25  # in a pass: about a sixth of the conversations
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


def make_data(folder: Path) -> dict[str, str]:
    """Write training and validation conversations, who the model is, and a task; what is documented, by its name."""
    from nanofast.chat_tasks import Question

    rng = random.Random(0)
    found = list(documented())
    rng.shuffle(found)
    modules = sorted({module for module, _, _ in found})
    letters = "ABCD"
    conversations, questions = [], []
    for number, (module, name, said) in enumerate(found):
        conversations.append(say(rng.choice(WAYS).format(f"{module}.{name}"), said))
        question = which_module(rng, module, name, modules)
        if number % 3 == 0:  # so that most answers are sentences
            asked = Question(question["question"], "", tuple(question["choices"])).text
            conversations.append(say(asked, letters[question["answer"]]))
        questions.append(which_module(rng, module, name, modules))
    held_out = len(conversations) // 20
    parts = {
        "train.jsonl": conversations[held_out:],
        "val.jsonl": conversations[:held_out],
        "identity.jsonl": [say(asked, said) for said, ways in IDENTITY.items() for asked in ways],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in parts.items():
        (folder / file).write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    (folder / "modules.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions[:100]), encoding="utf-8")
    print(f"data       {len(conversations):,} conversations from {len(found):,} docstrings, in {folder}")
    return {f"{module}.{name}": said for module, name, said in found}


def train_base(home: Path) -> int:
    """Pretrain the base model, or go on with it, unless that is done; the command's exit code."""
    from nanofast.resume import find

    if not (home / "runs" / BASE / "checkpoints").is_dir():
        return run(["--run", BASE, "--no-report", "--sample-every", "-1"])
    found = find(BASE, None, home)
    assert found is not None  # a name that holds nothing is refused
    horizon = found.config.schedule.num_iterations
    if horizon is not None and int(found.path.name.removeprefix("step_")) < horizon:
        return run(["--resume", BASE])
    return 0


def show(answers: list[str], title: str, documentation: dict[str, str]) -> None:
    """Questions, what the model says, and the documentation's own words where it has any."""
    print(f"\n== {title}")
    for question, answer in zip(ASKED, answers, strict=True):
        print(f"> {question}\n{textwrap.indent(answer.strip() or '(nothing)', '  ')}")
        if said := documentation.get("".join(question.split("`")[1:2])):
            print(f"  [the documentation: {said}]")


def main(words: list[str], steps: int = STEPS) -> int:
    """Make data, train, and chat; the exit code of the first command that fails."""
    home = home_folder()
    data = home / "data" / "chat-demo"
    documentation = make_data(data)
    base = words[0] if words else BASE
    if not words and (code := train_base(home)):
        return code
    # torch is imported only where it is needed: a wrong word is refused at once
    from nanofast.answering import answer_text
    from nanofast.chat_template import NANOCHAT
    from nanofast.generate import continue_text
    from nanofast.saved import load_model

    before = load_model(base, None, "auto")
    plain = [continue_text(before.model, before.tokenizer, question + "\n", 48, seed=1) for question in ASKED]
    train, val, identity = (str(data / f"{name}.jsonl") for name in ("train", "val", "identity"))
    named = ["--data", f"{train},{identity}:{IDENTITY_TIMES}", "--val-data", val, "--num-iterations", str(steps)]
    asked = ["--questions", *ASKED[:2], "--tasks", str(data / "modules.jsonl")]
    for stage, begun in (("midtrain", base), ("sft", "chat-demo-midtrain")):
        name = f"chat-demo-{stage}"
        shutil.rmtree(home / "runs" / name, ignore_errors=True)
        flags = ["--from", begun, "--run", name, "--add-special-tokens", *named, *asked]
        if code := run([stage, *flags, "--eval-every", "40", "--sample-every", "0", "--save-every", "0"]):
            return code
    after = load_model("chat-demo-sft", None, "auto")
    how = {"temperature": 0.3, "seed": 1}
    answers = [
        answer_text(after.model, after.tokenizer, NANOCHAT, say(question, "")[:1], 64, **how) for question in ASKED
    ]
    show(plain, "before: the base model goes on with the question", {})
    show(answers, "after: it answers", documentation)
    print("\ntalk to it: python -m nanofast.chat chat-demo-sft")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
