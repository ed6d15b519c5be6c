"""Functions with a docstring, cut out of Python source: a prompt (signature and docstring) and a response (the body).

Knows Python's syntax; what the functions become is rows.py's and corruptions.py's affair. prompt + response is the
function's own source, dedented, and parses.
"""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipelines.corpus_reader import Document
from fmtrain.kinds.examples import ExamplesStage

_Node = ast.FunctionDef | ast.AsyncFunctionDef
_NEWLINE = re.compile(r"\r\n?")


@dataclass(frozen=True)
class Function:
    """A function of `document`; `line` is where its `def` stands, from 1.

    `prompt` ends in a line feed and `response` in none; both keep the indentation they have below a `def` in column 0.
    """

    document: str
    group: str
    line: int
    name: str  # qualified: Class.method
    prompt: str
    response: str

    @property
    def id(self) -> str:
        return f"{self.document}:{self.line}:{self.name}"

    @property
    def source(self) -> str:
        return self.prompt + self.response


@dataclass(frozen=True)
class LeftOut:
    """A function, or with line 0 a whole document, that gives no example, and why."""

    document: str
    line: int
    reason: str


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None where Python refuses the source; its warnings about it are nobody's concern here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # all four are how ast.parse says no
            return None


def extract(document: Document, limits: ExamplesStage) -> Iterator[Function | LeftOut]:
    """Every function and method of a document, nested ones too, in source order, as an example or as left out."""
    text = _NEWLINE.sub("\n", document.text)
    tree = parse(text)
    if tree is None:
        yield LeftOut(document.id, 0, "document does not parse")
        return
    lines = text.split("\n")  # as Python counts: a form feed or U+2028 ends no line
    for node, name in _functions(tree, ""):
        yield _example(document, node, name, lines, limits)


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[_Node, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, prefix + node.name
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif not isinstance(node, ast.expr):
            yield from _functions(node, prefix)


def _example(doc: Document, node: _Node, name: str, lines: list[str], limits: ExamplesStage) -> Function | LeftOut:
    docstring = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return LeftOut(doc.id, node.lineno, "no docstring")
    if len(node.body) == 1:
        return LeftOut(doc.id, node.lineno, "no body beside the docstring")
    assert docstring.end_lineno is not None and node.end_lineno is not None
    head = lines[node.lineno - 1]
    indent = head[: len(head) - len(head.lstrip())]
    if docstring.lineno == node.lineno or node.body[1].lineno <= docstring.end_lineno:
        return LeftOut(doc.id, node.lineno, "docstring shares a line with code")
    prompt = _dedent(lines[node.lineno - 1 : docstring.end_lineno], indent) + "\n"
    response = _dedent(_without_blank_start(lines[docstring.end_lineno : node.end_lineno]), indent).rstrip()
    if reason := _length_fault(len(prompt), len(response), limits):
        return LeftOut(doc.id, node.lineno, reason)
    alone = parse(prompt + response)
    if alone is None or len(alone.body) != 1 or not _same_shape(alone.body[0], node):
        return LeftOut(doc.id, node.lineno, "does not parse alone")
    return Function(doc.id, doc.group, node.lineno, name, prompt, response)


def _without_blank_start(lines: list[str]) -> list[str]:
    first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    return lines[first:]


def _dedent(lines: list[str], indent: str) -> str:
    """Take `indent` off every line that has it; others stand inside a string or a comment and stay as they are."""
    return "\n".join(line.removeprefix(indent) if line.strip() else "" for line in lines)


def _length_fault(prompt: int, response: int, limits: ExamplesStage) -> str | None:
    if prompt < limits.min_prompt:
        return "prompt too short"
    if prompt > limits.max_prompt:
        return "prompt too long"
    if response < limits.min_response:
        return "response too short"
    if response > limits.max_response:
        return "response too long"
    return None


def _same_shape(alone: ast.stmt, node: _Node) -> bool:
    """Whether the cut-out function has the node's kind, name and statements, nested ones too."""
    if type(alone) is not type(node) or not isinstance(alone, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return alone.name == node.name and _kinds(alone) == _kinds(node)


def _kinds(node: _Node) -> Counter[str]:
    return Counter(type(child).__name__ for statement in node.body for child in ast.walk(statement))
