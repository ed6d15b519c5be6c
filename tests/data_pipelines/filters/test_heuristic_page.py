"""The examples on the page of the heuristic rules, and its lists of reasons."""

import doctest
import re
from pathlib import Path
from typing import Any

from data_pipelines.document import Document
from data_pipelines.filters import make
from data_pipelines.filters.base import Drop
from fmtrain.schema.rules import Filter
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "corpus" / "rules-heuristic.md"
ROOMS = ("gopher", "c4", "fineweb", "notices", "length", "code")


def drop(rule: str, text: str, **settings: Any) -> Drop | None:
    config = Filter(name="page", rules=[rule])
    for name, value in settings.items():
        setattr(getattr(config, rule), name, value)
    return make(rule, config)(Document("x", text))


def test_examples(tmp_path: Path) -> None:
    def word_list(*words: str) -> str:
        (tmp_path / "words.txt").write_text("\n".join(words))
        return str(tmp_path / "words.txt")

    page = doctest.DocTestParser().get_doctest(
        PAGE.read_text(), {"drop": drop, "word_list": word_list}, PAGE.name, str(PAGE), 0
    )
    said: list[str] = []
    result = doctest.DocTestRunner().run(page, out=said.append)
    assert result.attempted >= 9 and not result.failed, "".join(said)


def test_every_reason_stands_on_the_page() -> None:
    text = PAGE.read_text()
    for room in ROOMS:
        source = (REPOSITORY / "data_pipelines" / "filters" / f"{room}.py").read_text()
        for reason in re.findall(r'Drop\(f?"([a-z0-9_.{}]+)"', source):
            if "{" not in reason:
                assert f"`{reason}`" in text, reason
