"""The process that renders chat templates: foreign code, under limits that it cannot leave. Run by templates.py.

A template may loop for ever or ask for all the memory there is, in its text, while it is parsed or inside one call of
C. So it runs alone: the kernel counts its memory and its processor time, it holds no secret, writes no file and starts
no process. The environment of Jinja is that of transformers' `apply_chat_template` (a test holds the two equal), but
for its clock, which stands, and its dice, which always fall alike. Knows the standard library and jinja2.
"""

import datetime
import json
import os
import random
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 512 << 20  # bytes beyond those of this process at its start
OUTPUT, SPREAD = 1 << 20, 16  # characters that a row may become: so many, and so many times its contents
HEAD = struct.Struct("<Q")  # the length of what follows
_FAULTS = (MemoryError, RecursionError, OverflowError, SecurityError)  # of the template, whatever the row


class _TooLong(Exception):
    """A rendering longer than any row would be."""


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says for who wants a mask; the text is the same."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """What templates call `dict`: no way to the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: B902 - `namespace(self=..)` is one that templates write
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace holds no name with an underscore in front, given {name!r:.80}")


def _raise(message: Any) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Without HTML's escapes, which Jinja's own has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment(date: datetime.datetime) -> ImmutableSandboxedEnvironment:
    """What templates are compiled in; `date` is the only time that they can ask for."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals |= {
        "raise_exception": _raise,
        "strftime_now": date.strftime,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return made


class Renderer:
    """Renders with the template it was given last; a request without one means that."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.template: jinja2.Template | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`answers`: for each row its `texts`, one for each of its `cuts`, or why it is `refused`; or the `fault`."""
        try:
            if request["template"] is not None:
                signal.setitimer(signal.ITIMER_PROF, self.seconds)
                date = datetime.datetime.fromisoformat(request["date"])
                self.template = environment(date).from_string(request["template"])
        except Exception as e:
            return {"fault": f"it cannot be compiled: {_said(e)}"}
        answers = []
        for row in request["rows"]:
            signal.setitimer(signal.ITIMER_PROF, self.seconds)
            answers.append(self._row(row["messages"], row["cuts"], request["named"]))
            signal.setitimer(signal.ITIMER_PROF, 0)
            if "fault" in answers[-1]:
                return answers[-1]
        return {"answers": answers}

    def _row(self, messages: list[Any], cuts: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        most = OUTPUT + SPREAD * sum(len(m["content"]) for m in messages)
        try:
            return {"texts": [self._text(messages[:n], prompt, named, most) for n, prompt in cuts]}
        except _TooLong:
            return {"fault": f"it renders a row as more than {most:,} characters"}
        except MemoryError:
            return {"fault": f"it asks for more than {MEMORY >> 20} MB of memory"}
        except _FAULTS as e:
            return {"fault": _said(e)}
        except Exception as e:  # what its author wrote for such rows, or did not think of
            return {"refused": _said(e)}

    def _text(self, messages: list[Any], prompt: bool, named: dict[str, Any], most: int) -> str:
        assert self.template is not None
        random.seed(0)  # `lipsum` and `random`
        pieces, length = [], 0
        values = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": prompt, **named}
        for piece in self.template.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > most:
                raise _TooLong
        return "".join(pieces)


def _said(error: Exception) -> str:
    """A foreign error in few words; `raise_exception`'s message as it is."""
    if type(error) is jinja2.TemplateError:
        return str(error.message)[:300]
    return f"{type(error).__name__}: {str(error)[:300]}"


def confine() -> None:
    """From here on the kernel refuses more memory, written files and processes. Processor time is limited a row."""
    limits = {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NPROC: 0, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        with open("/proc/self/statm") as f:
            limits[resource.RLIMIT_AS] = int(f.read().split()[0]) * resource.getpagesize() + MEMORY
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message; None where the other side is gone."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (length,) = HEAD.unpack(head)
    body = stream.read(length)
    found: dict[str, Any] | None = json.loads(body.decode("utf-8", "surrogatepass")) if len(body) == length else None
    return found


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    stream.write(HEAD.pack(len(body)) + body)
    stream.flush()


def main() -> None:
    """Answer until the other side is gone; the argument is the processor time that a row may take, in seconds."""
    renderer, requests, answers = Renderer(float(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; who started us closes the pipe
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends this process, inside a call of C too
    confine()
    while (request := receive(requests)) is not None:
        send(answers, renderer.answer(request))
    os._exit(0)


if __name__ == "__main__":
    main()
