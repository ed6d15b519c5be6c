"""Fine-tuning rows: the forms users bring them in, normalised to an SFT row or a preference row.

A row that fits no form is an Unfit with its reason; nothing is repaired by guessing. Forms after TRL's dataset formats
(standard and conversational, explicit and implicit prompt).
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from fmtrain.artifacts.fingerprint import canonical
from fmtrain.schema.rows import made_ours, no_form
from fmtrain.schema.sources import Rows

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class SftRow:
    """A conversation that ends with the response to learn."""

    id: str
    group: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class PreferenceRow:
    """A prompt and two responses to it; `kind` is the corruption, or `given` where the user brought the pair."""

    id: str
    group: str
    kind: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Unfit:
    """A line that gives no row, and why; `line` counts from 1."""

    file: str
    line: int
    reason: str


class _Reject(ValueError):
    """This row fits no form; the message is the reason."""


def normalise(row: Any, data: Rows) -> SftRow | PreferenceRow | str:
    """The row of the contract, or the reason why there is none. Its id is the hash of what it says."""
    try:
        row, data, form = made_ours(row, data)
        match form:
            case "messages":
                return _sft(_messages(row["messages"], "messages"))
            case "prompt_completion":
                prompt, completion = row[data.prompt_key], row[data.completion_key]
                return _sft((*_conversation(prompt, data.prompt_key), *_response(completion, data.completion_key)))
            case "preference":
                return _preference(row, data)
            case _:
                return no_form(row)
    except ValueError as e:  # a _Reject, or what a plug-in says
        return str(e)


def _sft(messages: tuple[Message, ...]) -> SftRow:
    if messages[-1].role != "assistant":
        raise _Reject(f"the last message is the {messages[-1].role}'s, not the assistant's")
    if len(messages) == 1:
        raise _Reject("there is no message before the assistant's")
    _not_blank(messages[-1].content, "the response")
    return SftRow(_digest([_plain(m) for m in messages]), _group(messages[:-1]), messages)


def _preference(row: dict[str, Any], data: Rows) -> PreferenceRow:
    given = row.get(data.prompt_key, row.get("prompt"))
    prompt = _conversation(given, data.prompt_key) if given is not None else ()
    chosen, rejected = _completion(row["chosen"], "chosen"), _completion(row["rejected"], "rejected")
    shared = _shared(chosen, rejected)
    if shared == len(chosen) == len(rejected):
        raise _Reject("chosen and rejected are the same")
    if shared:  # both begin with the prompt; one given beside them must be part of it
        whole = chosen[:shared]
        if prompt and whole[: len(prompt)] != prompt and whole[-len(prompt) :] != prompt:
            raise _Reject("chosen and rejected begin with messages that are not the prompt")
        prompt = whole
    if not prompt:
        raise _Reject(f"no prompt: neither a {data.prompt_key!r} nor messages that chosen and rejected both begin with")
    if prompt[-1].role == "assistant":
        raise _Reject("the prompt ends with a message of the assistant's")
    good, bad = _single(chosen[shared:], "chosen"), _single(rejected[shared:], "rejected")
    said = {"prompt": [_plain(m) for m in prompt], "chosen": good, "rejected": bad}
    return PreferenceRow(_digest(said), _group(prompt), "given", prompt, good, bad)


def _shared(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> int:
    """How many messages the two begin with alike."""
    pairs = list(zip(chosen, rejected, strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _single(messages: tuple[Message, ...], key: str) -> str:
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(m.role for m in messages) or "nothing"
        raise _Reject(f"{key} is to be one message of the assistant's after the prompt; there is {roles}")
    _not_blank(messages[0].content, key)
    return messages[0].content


def _conversation(value: Any, key: str) -> tuple[Message, ...]:
    """A prompt: a string is the user's message."""
    if isinstance(value, str):
        _not_blank(value, key)
        return (Message("user", value),)
    return _messages(value, key)


def _response(value: Any, key: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", value),)
    return _messages(value, key)


def _completion(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, (str, list)):
        raise _Reject(f"{key} is a JSON {type(value).__name__}, not a string or a list of messages")
    return _response(value, key)


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise _Reject(f"{key} is a JSON {type(value).__name__}, not a list of messages")
    if not value:
        raise _Reject(f"{key} is empty")
    return tuple(_message(item, f"{key}[{i}]") for i, item in enumerate(value))


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise _Reject(f"{where} is a JSON {type(item).__name__}, not a message")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise _Reject(f"{where}.role is {str(role)[:40]!r}, not one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise _Reject(f"{where}.content is a JSON {type(content).__name__}, not a string")
    if item.get("tool_calls"):
        raise _Reject(f"{where}.tool_calls: calls of tools are not supported")
    return Message(role, content)


def _not_blank(text: str, what: str) -> None:
    if not text.strip():
        raise _Reject(f"{what} is empty")


def _plain(message: Message) -> list[str]:
    return [message.role, message.content]


def _group(prompt: tuple[Message, ...]) -> str:
    """What rows are set apart by: the first message of the user's, so that no prompt stands in both splits."""
    first = next((m for m in prompt if m.role == "user"), prompt[0])
    return _digest(first.content)


def _digest(said: Any) -> str:
    return hashlib.sha256(canonical(said).encode()).hexdigest()[:32]
