"""Rendering with a chat template, which is code of whoever made the tokenizer: in a process of its own, under limits.

One process serves all templates of this one, from the first rendering to the end; it is started again where a template
ended it. Its clock is the tokenizer's `template_date`, which is saved with the model: a template that writes today's
date writes the same in training, in the reference, in evaluation and in generation, today and next year.
"""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from fmtrain.data import template_process
from fmtrain.errors import InputError
from fmtrain.schema.fields import TEMPLATE_DATE

DAY = "template_date"  # in tokenizer_config.json
SECONDS = 5.0  # of processor time, to compile a template and for each row
_LONGEST = 1 << 20  # characters of a template's source; the longest known have 20,000


class TemplateFault(InputError):
    """The template is at fault, whatever the row: it cannot be compiled, or knows no bounds."""


def fix_date(tokenizer: PreTrainedTokenizerBase, date: str) -> None:
    """The day that the tokenizer's template is told, from now on and where the tokenizer is saved. ISO 8601."""
    if "strftime_now" in json.dumps(tokenizer.chat_template or ""):
        tokenizer.init_kwargs[DAY] = date


@dataclass(frozen=True)
class Wanted:
    """For each cut (n, prompt) the first n messages as text, with the head of the assistant's turn where `prompt`."""

    messages: Sequence[Mapping[str, str]]
    cuts: Sequence[tuple[int, bool]]


def render(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Wanted]) -> list[list[str] | InputError]:
    """Each row's texts, or why the template refuses it; many rows at once cost little more than one.

    TemplateFault, which names the template, where it is at fault.
    """
    said = [{"messages": [dict(m) for m in row.messages], "cuts": list(row.cuts)} for row in rows]
    request = {"named": tokenizer.special_tokens_map, "rows": said}
    answer = _process.ask(_template(tokenizer), _date(tokenizer), request)
    if "fault" in answer:
        raise TemplateFault(
            f"the chat template of {_where(tokenizer)}: {answer['fault']}. Give it another one: chat_template.jinja in "
            "its folder, or chat_template in tokenizer_config.json"
        )
    return [
        a["texts"] if "texts" in a else _refused(tokenizer, row, a)
        for row, a in zip(rows, answer["answers"], strict=True)
    ]


def _refused(tokenizer: PreTrainedTokenizerBase, row: Wanted, answer: dict[str, str]) -> InputError:
    roles = ", ".join(m["role"] for m in row.messages)
    return InputError(
        f"the chat template of {_where(tokenizer)} refuses a row with the roles {roles:.200}: {answer['refused']}"
    )


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template's source; of several the one called default."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError as e:
        raise TemplateFault(f"the chat template of {_where(tokenizer)}: {str(e).splitlines()[0][:200]}") from None
    if not isinstance(template, str) or len(template) > _LONGEST:
        raise TemplateFault(f"the chat template of {_where(tokenizer)} is no text of at most {_LONGEST:,} characters")
    return template


def _date(tokenizer: PreTrainedTokenizerBase) -> str:
    given = tokenizer.init_kwargs.get(DAY, TEMPLATE_DATE)
    try:
        return datetime.date.fromisoformat(given).isoformat()
    except (TypeError, ValueError):
        raise InputError(f"{_where(tokenizer)}: {DAY} in tokenizer_config.json is no date, e.g. 2026-01-31") from None


def _where(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.name_or_path) or "this tokenizer"


class _Process:
    """The rendering process, started when it is first asked; it ends when our end of its pipe is closed."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.has: tuple[str, str] | None = None  # the template that it has compiled last, and its date

    def ask(self, template: str, date: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer; a `fault` where the template ended the process.

        Nothing is timed here, so that a loaded machine changes nothing: the kernel ends a process that computes for
        too long, and one that does not compute has answered.
        """
        child = self.child if self.child is not None and self.child.poll() is None else self._start()
        known, self.has = self.has == (template, date), (template, date)
        request |= {"template": None if known else template, "date": date}
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            template_process.send(child.stdin, request)  # type: ignore[arg-type]
            answer = template_process.receive(child.stdout)  # type: ignore[arg-type]
            if answer is not None:
                self.has = None if "fault" in answer else self.has
                return answer
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        code, self.child = child.wait(), None
        if code == -signal.SIGPROF:
            return {"fault": f"it computes a row for more than {SECONDS:g} s"}
        return {"fault": f"it ended the process that renders it (status {code})"}

    def _start(self) -> "subprocess.Popen[bytes]":
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.child = subprocess.Popen(
            [sys.executable, "-P", template_process.__file__, str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, "PYTHONHASHSEED": "0"},
        )
        self.has = None
        return self.child


_process = _Process()
