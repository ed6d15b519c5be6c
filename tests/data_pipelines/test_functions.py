"""Functions cut out of source: exactly the file's text, dedented, and one that parses by itself."""

import ast
import textwrap
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.corpus_reader import Document
from data_pipelines.functions import Function, LeftOut, extract
from fmtrain.kinds.examples import ExamplesStage
from tests.data_pipelines import made

ALL = ExamplesStage(min_prompt=0, max_prompt=10**9, min_response=0, max_response=10**9)


def found(source: str, limits: ExamplesStage = ALL) -> list[Function | LeftOut]:
    return list(extract(Document("m.py", source, "m"), limits))


def functions(source: str) -> list[Function]:
    return [f for f in found(source) if isinstance(f, Function)]


SOURCE = '''
class A:
    @property
    async def one(self,
                  b=(1,
                     2)):
        """Doc.

          indented
        """  # after

        # first
        x = """
  less
            more
        """
        def inner():
            "inner doc"
            return 1
        return x  # last
    two = 2
'''


def test_prompt_and_response_are_the_files_text_dedented() -> None:
    one, inner = functions(SOURCE)
    assert (one.id, one.group, one.name) == ("m.py:4:A.one", "m", "A.one")
    assert one.prompt == (
        "async def one(self,\n              b=(1,\n                 2)):\n"
        '    """Doc.\n\n      indented\n    """  # after\n'
    )
    assert one.response == (
        '    # first\n    x = """\n  less\n        more\n    """\n    def inner():\n        "inner doc"\n'
        "        return 1\n    return x  # last"
    )
    assert inner.name == "A.one.inner"
    assert inner.source == 'def inner():\n    "inner doc"\n    return 1'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f():\n    return 1\n", "no docstring"),
        ('def f():\n    b"bytes"\n    return 1\n', "no docstring"),
        ('def f():\n    "doc"\n', "no body beside the docstring"),
        ('def f(): "doc"; return 1\n', "docstring shares a line with code"),
        ('def f():\n    "doc"; return 1\n', "docstring shares a line with code"),
        ('def f():\n    "doc"; x = """\n    """\n    return 1\n', "docstring shares a line with code"),
        ("def f(:\n", "document does not parse"),
        ("x = 1\0", "document does not parse"),
        ("(" * 5000, "document does not parse"),
    ],
)
def test_what_is_left_out_has_a_reason(source: str, reason: str) -> None:
    (left,) = found(source)
    assert isinstance(left, LeftOut)
    assert left.reason == reason


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ExamplesStage(min_prompt=20, min_response=1), "prompt too short"),
        (ExamplesStage(min_prompt=1, max_prompt=18, min_response=1), "prompt too long"),
        (ExamplesStage(min_prompt=1, min_response=15), "response too short"),
        (ExamplesStage(min_prompt=1, min_response=1, max_response=13), "response too long"),
        (ExamplesStage(min_prompt=19, max_prompt=19, min_response=14, max_response=14), None),
    ],
)
def test_lengths_are_characters_and_limits_are_inside(limits: ExamplesStage, reason: str | None) -> None:
    (one,) = found('def f():\n    "döc"\n    return "é"\n', limits)
    assert (one.reason if isinstance(one, LeftOut) else None) == reason


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_and_characters_that_only_look_like_line_ends(newline: str) -> None:
    source = 'x = "\u2028\x85\x1c"\n\x0c\ndef f():\n\t"doc \u2028"\n\treturn "\x0b"\n'.replace("\n", newline)
    (one,) = functions(source)
    assert one.source == 'def f():\n\t"doc \u2028"\n\treturn "\x0b"'


def test_functions_below_statements_are_found() -> None:
    source = 'if x:\n    try:\n        def f():\n            "doc"\n            return 1\n    except E:\n        pass\n'
    assert [f.name for f in functions(source)] == ["f"]


def stdlib_functions() -> Iterator[Function]:
    for document in made.stdlib_documents((*made.MODULES, "asyncio", "unittest", "ctypes")):
        for one in extract(document, ALL):
            if isinstance(one, Function):
                yield one


def test_every_function_of_real_modules_parses_alone_and_stands_in_its_file() -> None:
    texts = {d.id: d.text for d in made.stdlib_documents((*made.MODULES, "asyncio", "unittest", "ctypes"))}
    count = 0
    for one in stdlib_functions():
        count += 1
        (node,) = ast.parse(one.source).body
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        assert ast.get_docstring(node) and len(node.body) > 1
        assert one.prompt.endswith("\n") and not one.response.endswith("\n") and one.response.startswith((" ", "\t"))
        (prompt,) = ast.parse(one.prompt).body
        assert ast.unparse(prompt.body) == ast.unparse(node.body[0])  # type: ignore[attr-defined]
        lines = texts[one.document].split("\n")[one.line - 1 :]
        for line, cut in zip(lines, one.prompt.split("\n")[:-1], strict=False):
            assert line.endswith(cut) and not line.removesuffix(cut).strip()
    assert count > 600


NAME = st.sampled_from(["a", "bb", "self", "é"])
STATEMENT = st.sampled_from(
    ["x = 1", 'y = """\nz\n  """', "# c\npass", "if x:\n\tpass", "return (1,\n2)", "for i in x: f(i)"]
)


@settings(max_examples=150, deadline=None)
@given(
    name=NAME,
    body=st.lists(STATEMENT, min_size=1, max_size=5),
    depth=st.integers(0, 3),
    step=st.sampled_from(["  ", "    ", "\t"]),
)
def test_any_nesting_gives_the_function_at_column_0(name: str, body: list[str], depth: int, step: str) -> None:
    lines = [f"def {name}(x):", f'{step}"""doc\n\nmore"""']
    lines += [step + line.replace("\t", step) for statement in body for line in statement.split("\n")]
    source = "\n".join(lines)
    nested = source
    for _ in range(depth):
        nested = "class C:\n" + textwrap.indent(nested, step)
    (one,) = functions(nested + "\n")
    alone = ast.parse(one.source)
    assert ast.dump(alone.body[0].body[-1]) == ast.dump(ast.parse(source).body[0].body[-1])  # type: ignore[attr-defined]
    assert one.name == "C." * depth + name
