"""A chat as token ids, with the positions that are learnt: the assistant's responses and their end tokens alone.

Renders through the tokenizer's own chat template, turn by turn, so that the prompt's ids are exactly those that
generation starts from. Text that looks like a special token ("<eos>" in a user's file) stays text.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from fmtrain.data.templates import Wanted, render
from fmtrain.errors import ConfigError, InputError

Message = Mapping[str, str]  # {"role": ..., "content": ...}

# For a tokenizer without a template of its own: plain words and the end token it already has, no new special tokens.
# The response begins with a space so that byte-level BPE sees an ordinary first word, and the prompt ends without one.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n"
    "{% elif message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}\n"
    "{% else %}{{ raise_exception('role ' ~ message['role'] ~ ' is not one of system, user, assistant') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_BLOCK, _BLOCK_COST = 64, 1 << 20  # rows that are rendered together, at most; see Chat.cost
_MOST_COST = 1 << 25  # of one row: what the renderer's memory and time hold whatever the letters
_MESSAGE = 32  # characters that a message costs as many as beside its own
_PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
_NONCHARACTERS = [chr(c) for c in range(0xFDD0, 0xFDF0)]  # never assigned: they occur in no text of good faith


@dataclass(frozen=True)
class Encoded:
    """A chat's token ids, and for each whether it is to be predicted."""

    ids: list[int]
    loss: list[bool]


@dataclass(frozen=True)
class _Control:
    """A tokenizer's special tokens: by text, longest first; and those that may end a turn."""

    tokens: dict[str, int]
    pattern: re.Pattern[str]
    ends: frozenset[int]


@dataclass(frozen=True)
class _Hidden:
    """Messages whose literal special tokens are replaced by `open + number + close`."""

    messages: list[dict[str, str]]
    open: str = ""
    close: str = ""

    def restore(self, text: str, tokens: Sequence[str]) -> str:
        return re.sub(f"{self.open}(\\d+){self.close}", lambda m: tokens[int(m[1])], text)


_controls: "WeakKeyDictionary[PreTrainedTokenizerBase, _Control]" = WeakKeyDictionary()


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give a tokenizer without a chat template DEFAULT_TEMPLATE, to be saved with the model; whether it was needed.

    Behind <bos> where the tokenizer itself puts one before every text: the base model has seen no text without.
    """
    if tokenizer.chat_template:
        return False
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path} has neither a chat template nor an end token; "
            "set eos_token in its tokenizer_config.json"
        )
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + DEFAULT_TEMPLATE
    return True


@dataclass(frozen=True)
class Chat:
    """A conversation to encode: every assistant turn and its end token is learnt, or `last_alone` the last.

    What follows an end token (a newline, say) is not learnt; messages after the last assistant turn are left out.
    """

    messages: Sequence[Message]
    last_alone: bool = False

    @property
    def turns(self) -> list[int]:
        return [i for i, message in enumerate(self.messages) if message.get("role") == "assistant"]

    @property
    def cost(self) -> int:
        """Characters that are rendered for it, about: each turn is rendered with all that came before."""
        size = sum(len(str(m.get("content"))) + _MESSAGE for m in self.messages)
        return size * max(1, len(self.turns))


def pair(prompt_messages: Sequence[Message], response: str) -> Chat:
    """`response` as the assistant's turn after `prompt_messages`."""
    return Chat([*prompt_messages, {"role": "assistant", "content": response}], last_alone=True)


def encode_chats(tokenizer: PreTrainedTokenizerBase, chats: Iterable[Chat]) -> Iterator[Encoded | InputError]:
    """Every chat as it is asked for, some rendered ahead; in place of one that cannot be encoded, why.

    That is: no assistant turn, a role that the template refuses, or a template that renders earlier turns otherwise
    once later ones follow. TemplateFault where no row could be encoded.
    """
    ensure_chat_template(tokenizer)
    for block in _blocks(chats):
        prepared = [_prepare(tokenizer, chat) for chat in block]
        wanted = [Wanted(p.hidden.messages, p.cuts) for p in prepared if isinstance(p, _Prepared)]
        texts = iter(render(tokenizer, wanted) if wanted else [])
        for one in prepared:
            found = one if isinstance(one, InputError) else next(texts)
            if isinstance(one, InputError) or isinstance(found, InputError):
                yield found  # type: ignore[misc]
                continue
            try:
                yield _encode(tokenizer, one, found)
            except InputError as e:
                yield e


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    """One chat; InputError where it cannot be encoded."""
    return _only(encode_chats(tokenizer, [Chat(messages)]))


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt_messages: Sequence[Message], response: str) -> Encoded:
    """One response to a prompt: it and its end token alone are learnt."""
    return _only(encode_chats(tokenizer, [pair(prompt_messages, response)]))


def _only(found: Iterator[Encoded | InputError]) -> Encoded:
    (one,) = found
    if isinstance(one, InputError):
        raise one
    return one


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The ids that generation of the next assistant turn starts from."""
    ensure_chat_template(tokenizer)
    hidden = _hide(tokenizer, messages)
    (found,) = render(tokenizer, [Wanted(hidden.messages, [(len(hidden.messages), True)])])
    if isinstance(found, InputError):
        raise found
    return _tokens(tokenizer, found[0], hidden)


def end_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a turn under this template: its own end token where it has one, and the tokenizer's eos.

    Without a template, or with one that refuses even a question and an answer, the tokenizer's eos alone.
    """
    found = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    if not tokenizer.chat_template:
        return sorted(found)
    with contextlib.suppress(InputError, ConfigError):
        encoded = encode_chat(tokenizer, _PROBE)
        found.add([i for i, learnt in zip(encoded.ids, encoded.loss, strict=True) if learnt][-1])
    return sorted(found)


@dataclass(frozen=True)
class _Prepared:
    """A chat before it is rendered: up to each assistant turn, and with it."""

    hidden: _Hidden
    turns: list[int]
    learnt: set[int]

    @property
    def cuts(self) -> list[tuple[int, bool]]:
        return [cut for turn in self.turns for cut in ((turn, True), (turn + 1, False))]


def _blocks(chats: Iterable[Chat]) -> Iterator[list[Chat]]:
    """A few rows at a time: less than the trouble of a rendering is to ask for it, and less is to hold."""
    block, size = list[Chat](), 0
    for chat in chats:
        block.append(chat)
        size += chat.cost
        if len(block) == _BLOCK or size > _BLOCK_COST:
            yield block
            block, size = [], 0
    if block:
        yield block


def _prepare(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> "_Prepared | InputError":
    turns = chat.turns
    try:
        _check(chat.messages, turns)
        if chat.cost > _MOST_COST:
            raise InputError(
                f"a chat of {len(chat.messages)} messages with {len(turns)} turns to learn is too long to render turn "
                "by turn; cut it into several"
            )
        return _Prepared(_hide(tokenizer, chat.messages), turns, set(turns[-1:] if chat.last_alone else turns))
    except InputError as e:
        return e


def _encode(tokenizer: PreTrainedTokenizerBase, chat: _Prepared, texts: list[str]) -> Encoded:
    ids: list[int] = []
    loss: list[bool] = []
    text, seen = "", list[int]()  # what is rendered so far, and its ids as the tokenizer gives them, without our ends
    rendered = iter(texts)
    for turn, prompt, whole in zip(chat.turns, rendered, rendered, strict=True):
        for before, after in ((text, prompt), (prompt, whole)):
            if not after.startswith(before):
                raise InputError(
                    "the chat template is not prefix-stable: it renders "
                    f"{_tail(before, after)} once a further turn follows. Such rows cannot be told into prompt and "
                    "response; give single-turn rows, or a chat template that renders each turn on its own"
                )
        asked = _more(tokenizer, text, prompt, seen, chat.hidden)
        answer = _more(tokenizer, prompt, whole, seen + asked, chat.hidden)
        text, seen = whole, seen + asked + answer
        ids += asked
        loss += [False] * len(asked)
        answer, end = _ended(tokenizer, answer)
        ids += answer
        loss += [turn in chat.learnt and i <= end for i in range(len(answer))]
    return Encoded(ids, loss)


def _check(messages: Sequence[Message], turns: Sequence[int]) -> None:
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise InputError(f"a message needs a role and a content, both text; given {dict(message)!r:.200}")
    if not turns:
        raise InputError("a chat without an assistant turn has nothing to learn; add the response as role 'assistant'")
    if turns[0] == 0:
        raise InputError("a chat begins with the assistant's turn; put a user turn before it")


def _more(tokenizer: PreTrainedTokenizerBase, before: str, after: str, ids: list[int], hidden: _Hidden) -> list[int]:
    """The ids that `after` has beyond `before`, whose ids are `ids`.

    Where a token would span the seam (a merge across it), the rest is tokenized by itself: the prompt's ids must be
    those that generation starts from.
    """
    whole = _tokens(tokenizer, after, hidden)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    return _tokens(tokenizer, after[len(before) :], hidden)


def _ended(tokenizer: PreTrainedTokenizerBase, answer: list[int]) -> tuple[list[int], int]:
    """A turn's ids and the position of its end token; the tokenizer's eos is appended where the template gives none."""
    ends = _control(tokenizer).ends
    at = [i for i, token in enumerate(answer) if token in ends]
    if at:
        return answer, at[-1]
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"neither the chat template nor the tokenizer {tokenizer.name_or_path} has a token that ends a turn, so "
            "the model could never learn to stop; set eos_token in its tokenizer_config.json"
        )
    return [*answer, tokenizer.eos_token_id], len(answer)


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, hidden: _Hidden) -> list[int]:
    """Token ids of rendered text; special tokens that the template wrote are tokens, those in the content are text."""
    if not hidden.open:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    control = _control(tokenizer)
    names = list(control.tokens)
    ids: list[int] = []
    for piece in control.pattern.split(text):
        if piece in control.tokens:
            ids.append(control.tokens[piece])
        elif piece:
            plain = hidden.restore(piece, names)
            ids += tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _hide(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> _Hidden:
    """Replace what looks like a special token in the contents; nothing to do for nearly every row."""
    control = _control(tokenizer)
    contents = [m["content"] for m in messages]
    if not control.tokens or not any(control.pattern.search(c) for c in contents):
        return _Hidden([dict(m) for m in messages])
    free = [c for c in _NONCHARACTERS if not any(c in content for content in contents)]
    if len(free) < 2:
        raise InputError("a message holds both special tokens and every noncharacter of U+FDD0..U+FDEF; leave it out")
    numbers = {token: i for i, token in enumerate(control.tokens)}
    hide = lambda m: f"{free[0]}{numbers[m[0]]}{free[1]}"  # noqa: E731
    changed = [{**m, "content": control.pattern.sub(hide, m["content"])} for m in messages]
    return _Hidden(changed, free[0], free[1])


def _control(tokenizer: PreTrainedTokenizerBase) -> _Control:
    """The special tokens of `tokenizer`, looked up once: transformers builds these tables anew at each access."""
    if tokenizer not in _controls:
        tokens = {str(t.content): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        tokens = {t: tokens[t] for t in sorted(tokens, key=lambda t: (-len(t), t))}
        not_ends = {tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id}
        ends = set(tokens.values()) - not_ends | ({tokenizer.eos_token_id} - {None})
        pattern = re.compile(f"({'|'.join(map(re.escape, tokens))})" if tokens else "(?!)")
        _controls[tokenizer] = _Control(tokens, pattern, frozenset(ends))
    return _controls[tokenizer]


def _tail(before: str, after: str) -> str:
    """Where two renderings part, for a message."""
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    return f"{before[at : at + 40]!r} as {after[at : at + 40]!r}"
