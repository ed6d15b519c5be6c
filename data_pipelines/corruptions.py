"""Preference pairs from functions: chosen is the real body, rejected a corruption of it that is surely worse.

These are synthetic corruptions, never human preferences. Three kinds are trained on; `foreign_name` is kept for the
held-out split, to see whether a model learnt more than the three. Every choice is a hash of the seed and the function's
id. An operator flip is left out: the result may be equivalent.
"""

import ast
import builtins
import hashlib
import io
import keyword
import re
import tokenize
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from data_pipelines.functions import Function, parse

TRAINED_KINDS = ("other_body", "undefined_name", "missing_bracket")
HELDOUT_KIND = "foreign_name"
SIMILAR_LENGTH = 0.2  # another body may be this share longer or shorter
_TRIES = 40  # costly checks a function; what fails so often is left out and counted
_BUILTIN = frozenset(dir(builtins)) | frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)
_WORD = re.compile(r"[^\W\d]\w*")
T = TypeVar("T")


def rank(seed: int, *key: str) -> int:
    """A number drawn by hash: the same for the same seed and key on every machine and in every order."""
    return int.from_bytes(hashlib.sha256("\0".join([str(seed), *key]).encode()).digest()[:8], "big")


def rotate(values: Sequence[T], start: int) -> Iterator[T]:
    """All values once, from the one at `start` modulo their number, round to the one before it."""
    for i in range(len(values)):
        yield values[(start + i) % len(values)]


def words(text: str) -> frozenset[str]:
    """Every word of a document that could be an identifier, in strings and comments too: a superset of its names."""
    return frozenset(_WORD.findall(text))


class Corruptor:
    """Corrupts functions of one split; `functions` are those of the split, `known` the words of each document.

    `count` is the number of tokens of a text under the tokenizer; None where no foreign names are asked for.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        known: dict[str, frozenset[str]],
        seed: int,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self.seed, self.known, self.count = seed, known, count
        self.by_length = sorted(functions, key=lambda f: (len(f.response), f.id))
        self.lengths = [len(f.response) for f in self.by_length]
        self.foreign = _identifiers(functions, count) if count else {}

    def corrupt(self, function: Function, kind: str) -> str | None:
        """A rejected body of that kind, different from the real one, or None where the kind does not apply."""
        match kind:
            case "other_body":
                return self.other_body(function)
            case "undefined_name":
                return self.undefined_name(function)
            case "missing_bracket":
                return self.missing_bracket(function)
            case "foreign_name":
                return self.foreign_name(function)
        raise ValueError(f"no kind of corruption {kind!r}; there are {', '.join((*TRAINED_KINDS, HELDOUT_KIND))}")

    def other_body(self, function: Function) -> str | None:
        """Another module's body of similar length; the whole still parses, so that only the sense is wrong."""
        length = len(function.response)
        low = bisect_left(self.lengths, length * (1 - SIMILAR_LENGTH))
        high = bisect_right(self.lengths, length * (1 + SIMILAR_LENGTH))
        tries = 0
        for other in rotate(range(low, high), self._rank(function, "other_body")):
            body = self.by_length[other]
            if body.group == function.group or body.response == function.response:
                continue
            if parse(function.prompt + body.response) is not None:
                return body.response
            if (tries := tries + 1) == _TRIES:
                break
        return None

    def undefined_name(self, function: Function) -> str | None:
        """One use of a bare name misspelt: the new name stands nowhere in the document and is no builtin."""
        start = self._rank(function, "undefined_name")
        known = self.known[function.document] | _BUILTIN
        for name, at in rotate(bare_names(function), start):
            for wrong in rotate(misspellings(name), start):
                if wrong in known:
                    continue
                rejected = _replace(function.response, at, len(name), wrong)
                if parse(function.prompt + rejected) is not None:
                    return rejected
        return None

    def missing_bracket(self, function: Function) -> str | None:
        """One closing bracket taken out, so that the whole no longer parses."""
        places = closing_brackets(function)
        for at in rotate(places, self._rank(function, "missing_bracket")):
            rejected = function.response[:at] + function.response[at + 1 :]
            if parse(function.prompt + rejected) is None:
                return rejected
        return None

    def foreign_name(self, function: Function) -> str | None:
        """One use of a bare name replaced by a name of another module, unknown to this one, of equal token length.

        The whole still parses, and the two bodies have the same number of tokens: neither length nor a parser tells.
        """
        if self.count is None:
            return None
        start = self._rank(function, "foreign_name")
        known, length = self.known[function.document], self.count(function.response)
        tries = 0
        for name, at in rotate(bare_names(function), start):
            candidates = self.foreign.get(_token_lengths(name, self.count), [])
            for other, groups in rotate(candidates, start):
                if other in known or groups <= {function.group}:
                    continue
                rejected = _replace(function.response, at, len(name), other)
                if self.count(rejected) == length and parse(function.prompt + rejected) is not None:
                    return rejected
                if (tries := tries + 1) == _TRIES:
                    return None
        return None

    def _rank(self, function: Function, kind: str) -> int:
        return rank(self.seed, kind, function.id)


def bare_names(function: Function) -> list[tuple[str, int]]:
    """The uses of ASCII names in the body, each with its offset in the response, in characters, in source order.

    Names that are bound there are no uses. Names in f-strings are left out: Python 3.11 does not say where they are.
    """
    tree = parse(function.source)
    assert tree is not None, function.id
    lines = function.source.encode().split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    source, prompt = function.source.encode(), len(function.prompt.encode())
    found = []
    for node in _outside_f_strings(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id.isascii():
            at = starts[node.lineno - 1] + node.col_offset
            if at >= prompt and source[at : at + len(node.id)] == node.id.encode():
                found.append((node.id, len(source[prompt:at].decode())))
    return sorted(found, key=lambda pair: pair[1])


def _outside_f_strings(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            yield child
            yield from _outside_f_strings(child)


def misspellings(name: str) -> list[str]:
    """Identifiers one slip of the hand away: two letters swapped, one lost, one doubled; never empty, never `name`."""
    swapped = [name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)]
    lost = [name[:i] + name[i + 1 :] for i in range(len(name))] if len(name) > 3 else []
    doubled = [name[: i + 1] + name[i:] for i in range(len(name))]
    return sorted({w for w in swapped + lost + doubled if w != name and w.isidentifier()})


def closing_brackets(function: Function) -> list[int]:
    """Offsets in the response, in characters, of its closing brackets outside strings and comments."""
    prompt_lines = function.prompt.count("\n")
    starts = [0]
    for line in function.response.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    found, f_strings = [], 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(function.source).readline):
            kind = tokenize.tok_name[token.type]
            f_strings += (kind == "FSTRING_START") - (kind == "FSTRING_END")  # Python 3.12 looks inside them
            if kind == "OP" and token.string in (")", "]", "}") and not f_strings and token.start[0] > prompt_lines:
                found.append(starts[token.start[0] - prompt_lines - 1] + token.start[1])
    except (tokenize.TokenError, IndentationError):
        return []  # the tokenizer in Python is stricter than the parser on odd white space; the kind does not apply
    return found


def _replace(text: str, at: int, length: int, new: str) -> str:
    return text[:at] + new + text[at + length :]


def _token_lengths(name: str, count: Callable[[str], int]) -> tuple[int, int]:
    """Tokens of a name at the start of a word and after a space: the two ways it is mostly met."""
    return count(name), count(" " + name)


def _identifiers(
    functions: Sequence[Function], count: Callable[[str], int]
) -> dict[tuple[int, int], list[tuple[str, frozenset[str]]]]:
    """Names used in the functions, builtins apart, each with the groups that use it, by token lengths."""
    groups: dict[str, set[str]] = {}
    for function in functions:
        for name, _ in bare_names(function):
            if name not in _BUILTIN:
                groups.setdefault(name, set()).add(function.group)
    table: dict[tuple[int, int], list[tuple[str, frozenset[str]]]] = {}
    for name in sorted(groups):
        table.setdefault(_token_lengths(name, count), []).append((name, frozenset(groups[name])))
    return table
