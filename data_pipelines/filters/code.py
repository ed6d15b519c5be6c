"""Rules for Python source, after The Stack's (Kocetkov et al. 2022, section 3): lines first, then syntax.

Prose rules would empty a code corpus: Gopher's keep none of 120 standard library files.
"""

import ast
import re
import warnings

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.schema import rules

MARKER_LINES = 5  # a generated file says so at its top
_LINE_END = re.compile(r"\r\n|\r|\n")


class Code:
    """Length, mean and longest line, in characters, the mark of a generated file; then it parses, and is no data."""

    def __init__(self, config: rules.Code) -> None:
        self.config = config
        self.markers = [marker.lower() for marker in config.generated_markers]

    def __call__(self, doc: Document) -> Drop | None:
        return self._lines(doc.text) or self._syntax(doc.text)

    def _lines(self, text: str) -> Drop | None:
        config, length = self.config, len(text)
        if length < config.min_length:
            return Drop("code.too_short", length, config.min_length)
        if length > config.max_length:
            return Drop("code.too_long", length, config.max_length)
        lines = _LINE_END.split(text)
        mean = sum(map(len, lines)) / len(lines)
        if mean > config.max_mean_line:
            return Drop("code.mean_line", mean, config.max_mean_line)
        longest = max(map(len, lines))
        if longest > config.max_longest_line:
            return Drop("code.longest_line", longest, config.max_longest_line)
        top = "\n".join(lines[:MARKER_LINES]).lower()
        if marker := next((m for m in self.markers if m in top), None):
            return Drop("code.generated", marker, f"first {MARKER_LINES} lines")
        return None

    def _syntax(self, text: str) -> Drop | None:
        tree = parse(text)
        if isinstance(tree, str):
            return Drop("code.not_parsing", tree) if self.config.must_parse else None
        share = literal_share(text, tree)
        if share > self.config.max_literal_share:
            return Drop("code.literals", share, self.config.max_literal_share)
        return None


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
