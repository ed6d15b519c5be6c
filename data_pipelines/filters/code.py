"""Filters for Python source, after The Stack's rules (Kocetkov et al. 2022, section 3): lines first, then syntax.

Prose filters would empty a code corpus: Gopher's rules keep none of 120 standard library files.
"""

import ast
import re
import warnings

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from fmtrain.schema.corpus import CodeFilter

MARKER_LINES = 5  # a generated file says so at its top
_LINE_END = re.compile(r"\r\n|\r|\n")

Verdict = bool | tuple[bool, str]


class CodeLines(BaseFilter):  # type: ignore[misc]
    """Length, mean and longest line, in characters, and the mark of a generated file."""

    name = "Code lines"

    def __init__(self, config: CodeFilter) -> None:
        super().__init__()
        self.config = config
        self.markers = [marker.lower() for marker in config.generated_markers]

    def filter(self, doc: Document) -> Verdict:
        config, length = self.config, len(doc.text)
        if length < config.min_length:
            return _drop(doc, "code_too_short", f"{length} < {config.min_length} characters")
        if length > config.max_length:
            return _drop(doc, "code_too_long", f"{length} > {config.max_length} characters")
        lines = _LINE_END.split(doc.text)
        mean = sum(map(len, lines)) / len(lines)
        if mean > config.max_mean_line:
            return _drop(doc, "code_mean_line", f"{mean:.1f} > {config.max_mean_line} characters")
        longest = max(map(len, lines))
        if longest > config.max_longest_line:
            return _drop(doc, "code_longest_line", f"{longest} > {config.max_longest_line} characters")
        top = "\n".join(lines[:MARKER_LINES]).lower()
        if marker := next((m for m in self.markers if m in top), None):
            return _drop(doc, "code_generated", f"{marker!r} in the first {MARKER_LINES} lines")
        return True


class CodeSyntax(BaseFilter):  # type: ignore[misc]
    """It parses, and is not mostly data literals."""

    name = "Code syntax"

    def __init__(self, config: CodeFilter) -> None:
        super().__init__()
        self.config = config

    def filter(self, doc: Document) -> Verdict:
        tree = parse(doc.text)
        if isinstance(tree, str):
            return _drop(doc, "code_not_parsing", tree) if self.config.must_parse else True
        share = literal_share(doc.text, tree)
        if share > self.config.max_literal_share:
            return _drop(doc, "code_literals", f"{share:.2f} > {self.config.max_literal_share} of the characters")
        return True


def _drop(doc: Document, reason: str, detail: str) -> Verdict:
    doc.metadata["detail"] = detail
    return False, reason


def parse(text: str) -> ast.Module | str:
    """The module's tree, or why there is none. What is nested too deeply for the parser counts as not parsing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(text)
    except SyntaxError as e:
        return f"line {e.lineno}: {e.msg}"
    except (ValueError, RecursionError, MemoryError) as e:
        return f"{type(e).__name__}: {e}"


def literal_share(text: str, tree: ast.Module) -> float:
    """Share of the characters inside data literals: constants, and lists, tuples, sets and dicts of nothing else.

    Docstrings, and other strings that stand as a statement, are prose and do not count.
    """
    lines = [line.encode() for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)]  # ends kept; offsets are in bytes
    inside, todo = 0, list[ast.AST]([tree])
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.expr) and _is_data(node):
            inside += _characters(lines, node)
        elif not isinstance(node, ast.JoinedStr):  # in an f-string's parts, offsets are wrong before Python 3.12
            todo.extend(ast.iter_child_nodes(node))
    return inside / max(len(text), 1)


def _is_data(node: ast.expr | None) -> bool:
    """A constant, or a display of constants all the way down; depth is bounded by the parser's own limit."""
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(operand=ast.Constant()):
            return True
        case ast.BinOp(left=ast.Constant(), right=ast.Constant()):
            return True
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return all(map(_is_data, elements))
        case ast.Dict(keys=keys, values=values):
            return all(map(_is_data, keys)) and all(map(_is_data, values))
    return False


def _characters(lines: list[bytes], node: ast.expr) -> int:
    """Length of the node's source in characters; 0 where Python does not say where it ends."""
    if node.end_lineno is None or node.end_col_offset is None:
        return 0
    first, last = node.lineno - 1, node.end_lineno - 1
    if first == last:
        return len(lines[first][node.col_offset : node.end_col_offset].decode())
    middle = sum(len(line.decode()) for line in lines[first + 1 : last])
    return len(lines[first][node.col_offset :].decode()) + middle + len(lines[last][: node.end_col_offset].decode())
