"""Chats as tokens: what is learnt, what stays text, which templates are refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fmtrain.data.chat import (
    DEFAULT_TEMPLATE,
    Encoded,
    encode_chat,
    encode_pair,
    encode_prompt,
    end_token_ids,
    ensure_chat_template,
)
from fmtrain.errors import ConfigError, InputError
from fmtrain.models import load_tokenizer
from tests.fmtrain.fixtures import SPECIAL, make_tokenizer

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "def add(a, b):"},
    {"role": "assistant", "content": "    return a + b\n"},
    {"role": "user", "content": "again"},
    {"role": "assistant", "content": "no"},
]


def learnt(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> str:
    return tokenizer.decode([i for i, loss in zip(encoded.ids, encoded.loss, strict=True) if loss])


def foreign(template: str | None, special: list[str], eos: str | None = "</s>") -> PreTrainedTokenizerBase:
    """Another project's tokenizer: bytes only, its own special tokens and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, extra_special_tokens=special)
    tokenizer.chat_template = template
    return tokenizer


def test_ids_are_the_template_s(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode_chat(tokenizer, CHAT)
    assert encoded.ids == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert learnt(tokenizer, encoded) == "    return a + b\n<eos>no<eos>"


def test_a_pair_learns_the_response_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode_pair(tokenizer, CHAT[:4], "no")
    assert encoded.ids == encode_chat(tokenizer, CHAT).ids
    assert learnt(tokenizer, encoded) == "no<eos>"
    prompt = encode_prompt(tokenizer, CHAT[:4])
    assert prompt == tokenizer.apply_chat_template(CHAT[:4], add_generation_prompt=True)["input_ids"]
    assert encoded.ids[: len(prompt)] == prompt
    assert not any(encoded.loss[: len(prompt)]) and all(encoded.loss[len(prompt) :])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(max_size=8)), max_size=6).map("".join))
def test_special_tokens_in_the_content_stay_text(text: str) -> None:
    tokenizer = make_tokenizer()
    encoded = encode_chat(tokenizer, [{"role": "user", "content": text}, {"role": "assistant", "content": text}])
    names = [SPECIAL[i] for i in encoded.ids if i < len(SPECIAL)]
    assert names == ["<bos>", "<user>", "<eos>", "<assistant>", "<eos>"]
    assert learnt(tokenizer, encoded) == text.encode("utf-8", "replace").decode() + "<eos>"


def test_hiding_leaves_the_tokenizer_as_it_was(tokenizer: PreTrainedTokenizerBase) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    encode_pair(tokenizer, [{"role": "user", "content": "<eos>"}], "<eos>")
    encode_chat(tokenizer, CHAT)
    assert tokenizer.backend_tokenizer.to_str() == before  # what tokenizer.json will hold
    assert tokenizer("<eos>", add_special_tokens=False)["input_ids"] == [1]


def test_noncharacters_in_the_content(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "\ufdd00\ufdd1 <eos>"
    assert learnt(tokenizer, encode_pair(tokenizer, CHAT[:2], text)) == text + "<eos>"
    with pytest.raises(InputError, match="noncharacter"):
        encode_pair(tokenizer, CHAT[:2], "<eos>" + "".join(map(chr, range(0xFDD0, 0xFDF0))))


def test_the_end_token_of_the_template_is_found_and_what_follows_is_not_learnt() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = foreign(template, ["<|im_start|>", "<|im_end|>"])
    encoded = encode_chat(tokenizer, CHAT)
    assert encoded.ids == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert learnt(tokenizer, encoded) == "return a + b<|im_end|>no<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(end_token_ids(tokenizer)) == ["</s>", "<|im_end|>"]
    assert learnt(tokenizer, encode_pair(tokenizer, CHAT[:2], "a<|im_end|>b")) == "a<|im_end|>b<|im_end|>"
    assert encode_pair(tokenizer, CHAT[:2], "a<|im_end|>b").ids.count(end_token_ids(tokenizer)[1]) == 3


def test_a_tokenizer_that_marks_spaces() -> None:
    """Metaspace puts a space before the first word of what it is given: turns must not be tokenized piece by piece."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(["[INST] [/INST] again no " + m["content"] for m in CHAT] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (  # after Llama 2's
        "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] | trim }} </s>{% endif %}{% endfor %}"
    )
    encoded = encode_chat(tokenizer, CHAT[1:])
    assert encoded.ids == tokenizer.apply_chat_template(CHAT[1:])["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens([i for i, x in zip(encoded.ids, encoded.loss, strict=True) if x])
    assert "".join(tokens) == "▁return▁a▁+▁b▁</s>▁no▁</s>"


def test_a_template_without_an_end_gets_the_tokenizer_s() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = encode_chat(tokenizer := foreign(template, []), CHAT)
    assert learnt(tokenizer, encoded) == "    return a + b\n\n</s>no\n</s>"
    with pytest.raises(ConfigError, match="never learn to stop"):
        encode_chat(foreign(template, [], eos=None), CHAT)


def test_a_merge_over_the_seam_leaves_the_prompt_as_generation_sees_it() -> None:
    """The prompt ends in a space that BPE would merge with the response's first word."""
    tokenizer = make_tokenizer(["x: return return return"] * 9)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    prompt = encode_prompt(tokenizer, CHAT[:2])
    encoded = encode_pair(tokenizer, CHAT[:2], "return")
    assert tokenizer.apply_chat_template([*CHAT[:2], {"role": "assistant", "content": "return"}])["input_ids"] != (
        encoded.ids
    )
    assert encoded.ids[: len(prompt)] == prompt
    assert learnt(tokenizer, encoded) == "return<eos>"


def test_a_tokenizer_without_a_template_gets_a_plain_one(tmp_path: Path) -> None:
    tokenizer = foreign(None, [])
    encoded = encode_chat(tokenizer, CHAT)
    assert tokenizer.decode(encoded.ids) == (
        "be brief\nUser: def add(a, b):\nAssistant:     return a + b\n</s>\nUser: again\nAssistant: no</s>\n"
    )
    assert learnt(tokenizer, encoded) == "     return a + b\n</s> no</s>"
    tokenizer.save_pretrained(str(tmp_path))
    assert load_tokenizer(tmp_path).chat_template == DEFAULT_TEMPLATE
    assert not ensure_chat_template(tokenizer)
    with pytest.raises(ConfigError, match="neither a chat template nor an end token"):
        encode_chat(foreign(None, [], eos=None), CHAT)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{% if loop.last %}think {% endif %}{{ m['content'] }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    with pytest.raises(InputError, match="not prefix-stable"):
        encode_chat(tokenizer, CHAT)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "without an assistant turn"),
        (CHAT[:2], "without an assistant turn"),
        (CHAT[2:3], "begins with the assistant"),
        ([{"role": "user"}], "needs a role and a content"),
        ([{"role": "user", "content": None}], "needs a role and a content"),
    ],
)
def test_rows_that_are_no_chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_chat(tokenizer, messages)


def test_a_role_the_template_refuses() -> None:
    with pytest.raises(InputError, match="role tool is not one of"):
        encode_chat(foreign(None, []), [{"role": "tool", "content": "x"}, *CHAT[1:3]])
