"""datatrove's own blocks in a recipe: they run, and decide as they do alone; what is none is refused before."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datatrove.data
import pytest
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.formatters.base import BaseFormatter

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.filters import Chain, make
from fmtrain.errors import ConfigError
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema import blocks
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.load import identity
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Local
from launch.compose import compose
from tests.data_pipelines.filters.peer import real_texts

GIVEN = {"GopherQualityFilter": {"min_doc_words": 30, "stop_words": ["the", "of"], "min_stop_words": 1}}
RULES = ["datatrove:GopherRepetitionFilter", "datatrove:GopherQualityFilter", "datatrove:C4QualityFilter"]
PEERS = {
    RULES[0]: GopherRepetitionFilter,
    RULES[1]: functools.partial(GopherQualityFilter, min_doc_words=30, stop_words=["the", "of"], min_stop_words=1),
    RULES[2]: C4QualityFilter,
}


def alone(texts: list[str]) -> list[tuple[str, str]]:
    """(the text that is kept, "") or ("", why it is not) of each, by datatrove's own classes in a row."""
    chain: dict[str, BaseFilter] = {rule: peer() for rule, peer in PEERS.items()}
    found = []
    for text in texts:
        document, why = datatrove.data.Document(text=text, id="x"), ""
        for rule, block in chain.items():
            kept, reason = get_filter_result(block.filter(document))
            if not kept:
                why = f"{rule}.{reason}"
                break
        found.append(("", why) if why else (document.text, ""))
    return found


def test_a_corpus_by_datatrove_s_blocks_is_datatrove_s(make_corpus: Any, shared_data: Path, tmp_path: Path) -> None:
    texts = [text[:3000] for text in real_texts(shared_data)[::4] if text.strip()]
    rows = "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    (path := tmp_path / "a.jsonl").write_text(rows)
    job = CorpusJob(Local(), Filter("none", RULES, datatrove=GIVEN), Dedup("none", []))
    run = make_corpus(job, [path], tmp_path)
    result = run.run()
    expected = alone(texts)
    kept = {row["id"]: row["text"] for side in ("train", "heldout") for row in run.rows(side)}
    assert kept == {str(n): text for n, (text, why) in enumerate(expected) if not why}
    ledger = {row["id"]: row["rule"] for row in run.ledger()}
    assert ledger == {str(n): why for n, (_, why) in enumerate(expected) if why}
    assert len(kept) > 50 and len({rule.partition(".")[0] for rule in ledger.values()}) == 3
    assert {level["name"] for level in json.loads((run.out / "card.json").read_text())["levels"]} >= set(RULES)
    assert "datatrove" in result.numerics and '"min_doc_words": 30' in (run.out / "card.md").read_text()


def test_the_catalogue_is_the_package_s() -> None:
    """What is read off the source is what importing gives: names, arguments, which are required."""
    import inspect

    from datatrove.pipeline import filters, formatters

    theirs = {
        name: cls
        for module in (filters, formatters)
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, (BaseFilter, BaseFormatter))
    }
    assert set(blocks.blocks()) == set(theirs)
    for name, block in blocks.blocks().items():
        parameters = inspect.signature(theirs[name].__init__).parameters
        assert block.module == theirs[name].__module__ and block.is_filter == issubclass(theirs[name], BaseFilter)
        expected = {k: p.default is p.empty for k, p in parameters.items() if k not in ("self", *blocks._OURS)}
        assert {k: a.required for k, a in block.arguments.items()} == expected, name


def test_a_plan_checks_blocks_without_importing_datatrove() -> None:
    code = (
        "import sys; from launch.compose import compose\n"
        "r = compose(['recipe=tokens', 'data=local', 'filter.rules=[length,datatrove:URLFilter,datatrove:RegexFilter]',"
        "'filter.datatrove.RegexFilter.regex_exp=x', 'filter.datatrove.URLFilter.banned_words=[a,b]'])\n"
        "assert r.filter.datatrove == {'RegexFilter': {'regex_exp': 'x'}, 'URLFilter': {'banned_words': ['a', 'b']}}\n"
        "assert not {'datatrove', 'torch', 'ray'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


G = "filter.datatrove.GopherQualityFilter"
NAMED = "filter.rules=[datatrove:GopherQualityFilter]"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["filter.rules=[datatrove:GopherQuality]"], "no filter or formatter 'GopherQuality'; did you mean GopherQua"),
        ([NAMED, f"{G}.min_words=5"], "takes no such argument; did you mean min_doc_words"),
        ([NAMED, f"{G}.min_doc_words=many"], "min_doc_words: 'many' is not int or null"),
        ([NAMED, f"{G}.exclusion_writer=x"], "takes no such argument"),
        ([f"{G}.min_doc_words=5"], r"does not stand among filter.rules=\[.*it would not be applied"),
        (["filter.rules=[datatrove:RegexFilter]"], "regex_exp is required and was not given"),
        (["filter.rules=[datatrove:SamplerFilter]"], "would hang on the number of tasks"),
        (["filter.rules=[datatrove:LambdaFilter]"], "takes a Python function"),
        (
            ["filter.rules=[datatrove:LanguageFilter]", "filter.datatrove.LanguageFilter.backend=x"],
            "one of ft176, glotlid",
        ),
    ],
)
def test_what_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["recipe=tokens", "data=local", "data.files=x.jsonl", *overrides])


def apply(name: str, text: str, given: dict[str, Any] | None = None, **meta: Any) -> Document:
    chain = Chain(Filter("none", [f"datatrove:{name}"], datatrove={name: given or {}}), Account())
    doc = Document("x", text, meta=meta)
    assert chain(doc, len(text.encode())) is None
    return doc


def test_formatters_and_arguments() -> None:
    assert apply("FTFYFormatter", "schÃ¶n").text == "schön"
    own = {"stop_chars": [";"], "char_duplicates_ratio": 1, "new_line_ratio": 9, "short_line_thr": 1}
    assert apply("FineWebQualityFilter", "One line;\n" * 3, own).text.startswith("One line")


def test_what_a_block_lacks_is_said_before_anything_is_read(make_corpus: Any, tmp_path: Path) -> None:
    (path := tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    rules = Filter("none", ["datatrove:RegexFilter"], datatrove={"RegexFilter": {"regex_exp": 5}})
    job = CorpusJob(Local(), rules, Dedup("none", []))
    with pytest.raises(ConfigError, match="filter.datatrove.RegexFilter=.*refuses them"):
        make_corpus(job, [path], tmp_path).run()
    with pytest.raises(ConfigError, match="datatrove's LanguageFilter lacks something here: .*fasttext"):
        make("datatrove:LanguageFilter", Filter("none"))
    name = "FastTextClassifierFilter"  # whose model another could stand in for, and nothing would tell
    with pytest.raises(ConfigError, match="reads a model by an address, .*; the rule classifier reads"):
        make(f"datatrove:{name}", Filter("none", datatrove={name: {"model_url": "/x"}}))


def test_arguments_belong_to_the_identity_and_none_leaves_it_alone() -> None:
    assert "datatrove" not in identity(Filter("none", []))
    assert identity(Filter("none", RULES, datatrove=GIVEN))["datatrove"] == GIVEN
