"""Corruptions keep their promises on real functions: what parses parses, what must not does not, all differ."""

import ast
import builtins
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.corpus_reader import Document
from data_pipelines.corruptions import (
    HELDOUT_KIND,
    TRAINED_KINDS,
    Corruptor,
    bare_names,
    closing_brackets,
    misspellings,
    words,
)
from data_pipelines.functions import Function, extract
from data_pipelines.stages import tokenizer
from fmtrain.kinds.examples import ExamplesStage
from tests.data_pipelines import made

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder


class Subject:
    """What a corruption is tested on. One object, so that hypothesis has nothing long to print."""

    def __init__(self, modules: list[Document], count: Callable[[str], int]) -> None:
        found = [f for d in modules for f in extract(d, ExamplesStage())]
        self.functions = [f for f in found if isinstance(f, Function)]
        self.known = {d.id: words(d.text) for d in modules}
        self.count = count
        self.corruptors = [Corruptor(self.functions, self.known, seed, count) for seed in range(3)]
        self.users: dict[str, set[str]] = {}
        for f in self.functions:
            for name, _ in bare_names(f):
                self.users.setdefault(name, set()).add(f.group)


@pytest.fixture(scope="module")
def subject(modules: list[Document], tokenizer_folder: Path) -> Subject:
    loaded = tokenizer.load(tokenizer_folder)
    return Subject(modules, lambda text: len(loaded.encode(text).ids))


def parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def replaced(function: Function, rejected: str) -> tuple[str, str]:
    """The one identifier that differs: before and after."""
    pairs = [
        (old, new)
        for old, new in zip(
            ast.walk(ast.parse(function.source)), ast.walk(ast.parse(function.prompt + rejected)), strict=True
        )
        if isinstance(old, ast.Name) and isinstance(new, ast.Name) and old.id != new.id
    ]
    assert len(pairs) == 1
    return pairs[0][0].id, pairs[0][1].id


@pytest.mark.parametrize("kind", [*TRAINED_KINDS, HELDOUT_KIND])
def test_most_functions_take_every_kind(kind: str, subject: Subject) -> None:
    made = [subject.corruptors[0].corrupt(f, kind) for f in subject.functions]
    assert len(made) > 200
    assert sum(m is not None for m in made) > 0.85 * len(made)


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 10**6), seed=st.integers(0, 2))
def test_promises(index: int, seed: int, subject: Subject) -> None:
    one, corruptor = subject.functions[index % len(subject.functions)], subject.corruptors[seed]
    known = subject.known[one.document]
    made = {kind: corruptor.corrupt(one, kind) for kind in (*TRAINED_KINDS, HELDOUT_KIND)}
    assert made == {kind: corruptor.corrupt(one, kind) for kind in made}
    assert one.response not in made.values()
    if (body := made["other_body"]) is not None:
        assert parses(one.prompt + body)
        assert abs(len(body) - len(one.response)) <= 0.2 * len(one.response)
        assert {f.group for f in subject.functions if f.response == body} - {one.group}
    if (body := made["undefined_name"]) is not None:
        _, new = replaced(one, body)
        assert new not in known and not hasattr(builtins, new)
    if (body := made["missing_bracket"]) is not None:
        assert not parses(one.prompt + body)
        at = next((i for i, c in enumerate(body) if c != one.response[i]), len(body))
        assert one.response[at] in ")]}" and body == one.response[:at] + one.response[at + 1 :]
    if (body := made["foreign_name"]) is not None:
        _, new = replaced(one, body)
        assert new not in known and subject.users[new] - {one.group} and not hasattr(builtins, new)
        assert subject.count(body) == subject.count(one.response)


def test_the_order_of_functions_changes_nothing(subject: Subject) -> None:
    orders = (subject.functions, subject.functions[::-1])
    one, other = (Corruptor(order, subject.known, 1, subject.count) for order in orders)
    for f in subject.functions[::10]:
        assert all(one.corrupt(f, kind) == other.corrupt(f, kind) for kind in (*TRAINED_KINDS, HELDOUT_KIND))


def function(body: str, group: str = "m") -> Function:
    return Function(f"{group}.py", group, 1, "f", 'def f(é, x):\n    "ä (doc)"\n', body)


def test_names_are_uses_outside_strings_with_their_place() -> None:
    one = function("    é = g(x); y = 'x'  # x\n    return f'{x}', x.x, g")
    assert bare_names(one) == [
        ("g", 8),
        ("x", 10),
        ("x", one.response.index("x.x")),
        ("g", len(one.response) - 1),
    ]


def test_brackets_are_those_of_the_code() -> None:
    one = function("    y = [f'{x}', ')', (1)]  # )\n    return {1: y}")
    assert [one.response[i] for i in closing_brackets(one)] == [")", "]", "}"]


@given(name=st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True))
def test_misspellings_are_other_identifiers(name: str) -> None:
    found = misspellings(name)
    assert found and name not in found
    assert all(w.isidentifier() for w in found)


def test_kinds_that_do_not_apply() -> None:
    one = function("    return 1\n    pass")
    alone = Corruptor([one], {"m.py": words(one.source)}, 1, len)
    assert [alone.corrupt(one, kind) for kind in (*TRAINED_KINDS, HELDOUT_KIND)] == [None] * 4
    with pytest.raises(ValueError, match="no kind of corruption 'operator'"):
        alone.corrupt(one, "operator")


def test_another_body_that_would_not_parse_is_passed_over() -> None:
    one, tabs = function("    return g(x, 1)"), function("\treturn h(x, 2)   ", "tabs")
    good = function("    return k(x, 3)", "good")
    corruptor = Corruptor([one, tabs, good], {}, 1)
    assert all(Corruptor([one, tabs, good], {}, seed).other_body(one) == good.response for seed in range(6))
    assert corruptor.other_body(good) == one.response
