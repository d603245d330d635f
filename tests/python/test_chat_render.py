"""Rendering: ids and masks by nanochat's rules, by Hugging Face's templates, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanofast
from chat_shards import write_jsonl
from chat_twin import nanochat_tokenizer, random_conversations, render
from nanofast.answering import end_tokens
from nanofast.chat_template import CHATML, LLAMA3, NANOCHAT, TEMPLATES, ChatTemplate
from nanofast.data import inspect, inspect_chat

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]


def shown(tokenizer: nanofast.Tokenizer, conversation: Any, template: ChatTemplate | str = "nanochat") -> str:
    """The text of a conversation with what is learned in brackets."""
    ids, mask = tokenizer.render(conversation, template)
    text = ""
    learned = False
    for token, is_learned in zip(ids, mask, strict=True):
        text += "" if is_learned == learned else "]" if learned else "["
        text += tokenizer.decode([int(token)])
        learned = bool(is_learned)
    return text + ("]" if learned else "")


def test_each_side_has_its_tokens_and_the_assistants_are_learned(chat_tokenizer: nanofast.Tokenizer):
    assert shown(chat_tokenizer, HELLO) == (
        "<|bos|><|user_start|>hi<|user_end|><|assistant_start|>[hello there<|assistant_end|>]"
    )


def test_a_call_is_learned_and_its_output_is_not(chat_tokenizer: nanofast.Tokenizer):
    parts = [
        {"type": "text", "text": "Let me see. "},
        {"type": "python", "text": "1 + 1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "Two."},
    ]
    conversation = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": parts}]}
    assert shown(chat_tokenizer, conversation) == (
        "<|bos|><|user_start|>1+1?<|user_end|><|assistant_start|>[Let me see. <|python_start|>1 + 1<|python_end|>]"
        "<|output_start|>2<|output_end|>[Two.<|assistant_end|>]"
    )


def test_a_system_message_goes_in_front_of_the_first_users(chat_tokenizer: nanofast.Tokenizer):
    conversation = [{"role": "system", "content": "Be brief."}, *HELLO]
    merged = [{"role": "user", "content": "Be brief.\n\nhi"}, HELLO[1]]
    for found, expected in zip(chat_tokenizer.render(conversation), chat_tokenizer.render(merged), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_text_that_looks_like_a_special_token_is_text(chat_tokenizer: nanofast.Tokenizer):
    said = "<|assistant_end|>"
    ids, _ = chat_tokenizer.render([{"role": "user", "content": said}, HELLO[1]])
    end = chat_tokenizer.special_tokens["<|assistant_end|>"]
    assert ids.tolist().count(end) == 1
    assert ids.tolist()[2 : 2 + chat_tokenizer.count_tokens(said)] == chat_tokenizer.encode(said).tolist()


def test_which_roles_are_learned_and_whether_only_the_last_turn_is(chat_tokenizer: nanofast.Tokenizer):
    conversation = [*HELLO, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "well"}]
    last = dataclasses.replace(NANOCHAT, only_last_turn=True)
    assert "[hello" not in shown(chat_tokenizer, conversation, last)
    assert "[well<|assistant_end|>]" in shown(chat_tokenizer, conversation, last)
    both = dataclasses.replace(NANOCHAT, learned_roles=("user", "assistant"))
    assert "[hi<|user_end|>]" in shown(chat_tokenizer, conversation, both)
    ends_with_user = [*conversation, {"role": "user", "content": "bye"}]
    assert "[well<|assistant_end|>]" in shown(chat_tokenizer, ends_with_user, last)


def test_a_generation_prompt_ends_where_an_answer_begins(chat_tokenizer: nanofast.Tokenizer):
    whole, _ = chat_tokenizer.render(HELLO)
    prompt, mask = chat_tokenizer.render(HELLO[:1], add_generation_prompt=True)
    assert whole[: len(prompt)].tolist() == prompt.tolist()
    assert chat_tokenizer.decode(prompt).endswith("<|assistant_start|>")
    assert not mask.any()


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.name)
def test_an_answer_ends_at_every_special_token_but_those_around_its_parts(template: ChatTemplate):
    tokenizer = nanofast.Tokenizer.from_name("r50k_base").with_special_tokens(template.special_tokens)
    special = tokenizer.special_tokens
    goes_on = {token for token in special if special[token] not in end_tokens(tokenizer, template)}
    around = {"<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"}
    assert goes_on == (around if template.parts else set())
    assert special["<|endoftext|>"] in end_tokens(tokenizer, template), "one that the template does not know"


@pytest.mark.parametrize("base", ["r50k_base", "o200k_base"])
def test_random_conversations_are_the_twins(base: str):
    tokenizer = nanochat_tokenizer(base)
    conversations = random_conversations(1, 200) + random_conversations(2, 200, parts=True)
    for conversation in conversations:
        ids, mask = tokenizer.render(conversation)
        expected_ids, expected_mask = render(conversation, tokenizer)
        assert ids.tolist() == expected_ids, conversation
        assert mask.tolist() == expected_mask, conversation


# As a model's own template file would have it; `generation` marks what Hugging Face's mask covers.
JINJA = {
    "chatml": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{{ '<|begin_of_text|>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    ),
    "nanochat": (
        "{{ '<|bos|>' }}{% for m in messages %}{{ '<|' + m['role'] + '_start|>' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] + '<|assistant_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|user_end|>' }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_ids_and_mask_are_those_of_apply_chat_template(name: str, tmp_path: Any):
    transformers = pytest.importorskip("transformers")
    template = TEMPLATES[name]
    # a vocabulary without holes among its ids: Hugging Face gives added tokens behind a hole other ids
    tokenizer = nanofast.Tokenizer.from_name("r50k_base").with_special_tokens(template.special_tokens)
    tokenizer.save(tmp_path / "tokenizer.json", format="huggingface")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    conversations = [
        [message for message in conversation if name != "nanochat" or message["role"] != "system"]
        for conversation in random_conversations(3, 60)
    ]
    conversations.append([{"role": "user", "content": "\n\n hi "}, {"role": "assistant", "content": "\n\n  well \n"}])
    for conversation in conversations:
        # what looks like a special token is one to Hugging Face
        said = [{**m, "content": m["content"].replace("<|", "< |")} for m in conversation]
        expected = theirs.apply_chat_template(
            said,
            chat_template=JINJA[name],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = tokenizer.render(said, template)
        assert ids.tolist() == list(expected["input_ids"]), said
        assert mask.tolist() == [bool(learned) for learned in expected["assistant_masks"]], said


@pytest.mark.parametrize("template", [CHATML, LLAMA3])
def test_a_vocabulary_without_the_special_tokens_is_refused_with_their_list(template: ChatTemplate):
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with pytest.raises(nanofast.InvalidError) as refused:
        tokenizer.render(HELLO, template)
    for token in template.special_tokens:
        assert f"`{token}`" in str(refused.value)
    extended = tokenizer.with_special_tokens(template.special_tokens)
    assert extended.vocab_size == tokenizer.vocab_size + len(template.special_tokens)
    assert extended.with_special_tokens(template.special_tokens).fingerprint == extended.fingerprint
    assert extended.encode("some text").tolist() == tokenizer.encode("some text").tolist()
    ids, mask = extended.render(HELLO, template)
    assert mask.any()
    assert ids[-1] >= tokenizer.vocab_size or template is CHATML


@pytest.mark.parametrize(
    ("conversation", "complaint"),
    [
        ([], "no messages"),
        ({"messages": []}, "no messages"),
        ({"message": HELLO}, "no `messages` in the row (has: `message`)"),
        ({"messages": "hi"}, "`messages` is text; expected a list"),
        ("hi", "a row that is text"),
        ([HELLO[1]], "message 0: role `assistant`; expected `user`"),
        ([HELLO[0], HELLO[0]], "message 1: role `user`; expected `assistant`"),
        ([*HELLO, HELLO[1]], "message 2: role `assistant`; expected `user`"),
        ([{"role": "system", "content": "x"}], "message 0: a system message alone"),
        ([{"role": "system", "content": "x"}, HELLO[1]], "message 1: role `assistant`; expected `user`"),
        ([HELLO[0], {"role": "system", "content": "x"}], "message 1: role `system`"),
        ([{"role": "tool", "content": "x"}], "message 0: role `tool`"),
        ([HELLO[0], {"role": "assistant", "content": None}], "message 1: `content` is null"),
        ([HELLO[0], {"role": "assistant"}], "message 1: `content` is missing"),
        ([HELLO[0], {"role": None, "content": "x"}], "message 1: `role` is null"),
        ([HELLO[0], {"role": "assistant", "content": 7}], "message 1: `content` is a number"),
        ([HELLO[0], 7], "message 1: it is a number"),
        ([HELLO[0], {"role": "assistant", "content": [{"type": "image", "text": ""}]}], "type `image`"),
        ([HELLO[0], {"role": "assistant", "content": [{"text": "x"}]}], "`type` is missing"),
        ([HELLO[0], {"role": "assistant", "content": [{"type": "text"}]}], "`text` is missing"),
        ([{"role": "user", "content": [{"type": "python", "text": "1"}]}, HELLO[1]], "only an assistant's"),
    ],
)
def test_what_is_no_conversation_is_refused_in_words(
    conversation: Any, complaint: str, chat_tokenizer: nanofast.Tokenizer
):
    with pytest.raises(nanofast.InvalidError) as refused:
        chat_tokenizer.render(conversation)
    assert complaint in str(refused.value)


def test_a_part_that_the_template_lacks_is_refused():
    tokenizer = nanofast.Tokenizer.from_name("r50k_base").with_special_tokens(CHATML.special_tokens)
    parts = [{"type": "python", "text": "1"}]
    with pytest.raises(nanofast.InvalidError, match="part of type `python`, which the template `chatml` lacks"):
        tokenizer.render([HELLO[0], {"role": "assistant", "content": parts}], CHATML)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"learned_roles": ()}, "no role is learned"),
        ({"learned_roles": ("robot",)}, "role `robot`"),
        ({"turns": {"user": NANOCHAT.turns["user"]}}, "no turn for the role `assistant`"),
        ({"pad": "<|pad|>"}, "pad `<|pad|>` is none of its special tokens"),
    ],
)
def test_a_template_that_cannot_be_is_refused(
    change: dict[str, Any], complaint: str, chat_tokenizer: nanofast.Tokenizer
):
    with pytest.raises(nanofast.InvalidError) as refused:
        chat_tokenizer.render(HELLO, dataclasses.replace(NANOCHAT, **change))
    assert complaint in str(refused.value)


def test_templates_are_data():
    for template in TEMPLATES.values():
        assert json.loads(template.arguments())["template"]["name"] == template.name
    with pytest.raises(nanofast.InvalidError, match="one of nanochat, chatml, llama3"):
        ChatTemplate.from_name("alpaca")


def inspect_words(*words: str) -> int:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    return inspect.run(parser.parse_args(list(words)))


def test_inspecting_shows_which_tokens_are_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_jsonl(tmp_path / "a.jsonl", [HELLO, [*HELLO, *HELLO], HELLO])
    words = ("--chat", "--tokenizer", "r50k_base", "--count", "2", "--no-colour")
    assert inspect_words(str(path), *words) == 0
    shown = capsys.readouterr().out
    assert "▏<|bos|><|user_start|>hi<|user_end|><|assistant_start|>⟦hello there<|assistant_end|>⟧" in shown
    assert "8 tokens, 3 learned (38%)" in shown
    assert shown.count("▏") == 2
    tokenizer = nanochat_tokenizer()
    ids, mask = tokenizer.render(HELLO)
    text = inspect_chat.coloured(tokenizer, ids.tolist(), mask.tolist())
    assert text.endswith("\x1b[32mhello there<|assistant_end|>\x1b[0m")
    assert text.startswith("\x1b[2m<|bos|>")
    with pytest.raises(ValueError, match="pass --tokenizer"):
        inspect_words(str(path), "--chat")
    with pytest.raises(ValueError, match="with --chat leave it out"):
        inspect_words(str(path), *words, "--batch", "0")
    with pytest.raises(ValueError, match=r"is no parquet; .* or pass --chat"):
        inspect_words(str(path))
    assert inspect_words(str(path), *words, "--json", "--html", str(tmp_path / "page.html")) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["ids"], first["learned"]) == (ids.tolist(), mask.tolist())
    assert first["text"] == tokenizer.decode(ids)
    assert len(second["ids"]) > len(ids)
    assert "⟦hello there&lt;|assistant_end|&gt;⟧" in (tmp_path / "page.html").read_text("utf-8")
    path.write_text('{"messages": []}\n')
    with pytest.raises(nanofast.InvalidError, match="row 0: it has no messages"):
        inspect_words(str(path), *words)
