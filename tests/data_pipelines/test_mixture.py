"""Mixtures: the plan's arithmetic, what is refused, and what comes of it in the shards."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import mixture
from data_pipelines.corpus_reader import Document
from data_pipelines.stages import tokens
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.tokens import TokensJob, TokensStage
from fmtrain.schema.mixture import Mixture
from tests.data_pipelines import made
from tests.data_pipelines.test_tokens import texts_of

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder
WORDS = ["def", "return", "self", "import", "value", "name", "None", "class", "for", "in", "if", "else", "print"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources of 100, 60 and 20 documents."""
    rng, made_of = random.Random(1), []
    for source, size in (("web/a", 60), ("web/b", 40), ("code", 60), ("books", 20)):
        for i in range(size):
            text = f"{source} {i} " + " ".join(rng.choices(WORDS, k=rng.randrange(30, 80)))
            made_of.append(Document(f"{source}-{i:03d}", text, "g", source))
    return made.write_corpus(tmp_path_factory.mktemp("mixed"), made_of)


def run(folder: Path, corpus: Path, tokenizer: Path, **settings: object) -> made.Ran:
    job = TokensJob(TokensStage(shard_tokens=3000, mixture=Mixture(**settings)))  # type: ignore[arg-type]
    return made.run_stage(tokens.run, folder, job, {"corpus": corpus, "tokenizer": tokenizer})


def test_epochs_and_parts(
    tmp_path: Path, mixed: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(tmp_path, mixed, tokenizer_folder, weights=["web/*:1", "code:3"], tokens=20_000)
    sources = {s["source"]: s for s in json.loads((ran.out / "mixture.json").read_text())["sources"]}
    assert sources["web/*"]["wanted"] == 5_000 and sources["code"]["wanted"] == 15_000
    times = Counter(texts_of(ran, tokenizer_folder))
    assert not any(text.startswith("books") for text in times)
    for name, start in (("web/*", "web/"), ("code", "code")):
        seen = {n for text, n in times.items() if text.startswith(start)} | ({0} if name == "web/*" else set())
        whole = int(sources[name]["epochs"])
        assert seen == {whole, whole + 1}
        total = sum(n for text, n in times.items() if text.startswith(start))
        assert total == sources[name]["became"]["documents"]
        assert abs(sources[name]["became"]["tokens"] / sources[name]["wanted"] - 1) < 0.15
    assert ran.result.counts["mixture"]["code"]["tokens"] == sources["code"]["became"]["tokens"]
    assert sum(m["tokens"] for m in ran.result.counts["mixture"].values()) == ran.result.counts["tokens"]
    assert json.loads((ran.out / "mixture.json").read_text())["left_out"] == {"books": 20}
    printed = capsys.readouterr().err
    assert printed.index("planned") < printed.index("left out, without a weight: 20 documents of 1 sources")
    assert "cut" in printed and "repeated" in printed
    assert re.search(r"\d+ training documents: 20 of a source without a weight, .*\d+ tokenized$", printed.strip())


def test_order_is_the_corpus_order_epoch_by_epoch(tmp_path: Path, mixed: Path, tokenizer_folder: Path) -> None:
    ran = run(tmp_path, mixed, tokenizer_folder, weights=["code:1"], tokens=13_000)
    texts = texts_of(ran, tokenizer_folder)
    first = texts[:60]
    assert len(set(first)) == 60 and first == sorted(first, key=lambda t: f"code-{int(t.split()[1]):03d}")
    rest, at = texts[60:], 0
    while at < len(rest):  # each later pass is a subsequence of the first, in its order
        whole = rest[at : at + 60]
        places = [first.index(t) for t in whole]
        assert places == sorted(places)
        at += len(whole)
    assert run(tmp_path / "again", mixed, tokenizer_folder, weights=["code:1"], tokens=13_000).digest() == ran.digest()
    other = run(tmp_path / "other", mixed, tokenizer_folder, weights=["code:1"], tokens=13_000, seed=2)
    assert other.digest() != ran.digest()


def test_tokens_alone_take_every_source_by_its_size(tmp_path: Path, mixed: Path, tokenizer_folder: Path) -> None:
    ran = run(tmp_path, mixed, tokenizer_folder, tokens=8_000)
    assert abs(ran.result.counts["tokens"] / 8_000 - 1) < 0.15
    assert len(set(texts_of(ran, tokenizer_folder))) == ran.result.counts["documents"]


def test_weights_alone_repeat_nothing(tmp_path: Path, mixed: Path, tokenizer_folder: Path) -> None:
    ran = run(tmp_path, mixed, tokenizer_folder, weights=["code:0.5", "books:0.5"])
    texts = texts_of(ran, tokenizer_folder)
    assert len(set(texts)) == len(texts)
    assert sum(t.startswith("books") for t in texts) == 20


def test_what_is_refused(tmp_path: Path, mixed: Path, tokenizer_folder: Path) -> None:
    def refused(**settings: object) -> None:
        run(tmp_path, mixed, tokenizer_folder, **settings)

    with pytest.raises(InputError, match="no training document of a source 'wiki'; .*'web/a'"):
        refused(weights=["wiki:1", "code:1"])
    with pytest.raises(
        ConfigError, match=r"books has [\d,]+ tokens and 90,000 are wanted: .* at most 4. Ask for at most"
    ):
        refused(weights=["books:0.9", "code:0.1"], tokens=100_000)
    with pytest.raises(ConfigError, match="at most 1.5"):
        refused(weights=["code:1"], tokens=10_000, epochs=["code:1.5"])
    for weights in (["code"], ["code:x"], ["code:-1"], [":1"], ["code:nan"]):
        with pytest.raises(ConfigError, match=r"SOURCE:NUMBER .*weights=\[web:0.7,code:0.3\]"):
            refused(weights=weights)
    with pytest.raises(ConfigError, match="code stands twice"):
        refused(weights=["code:1", "code:2"])
    with pytest.raises(ConfigError, match="no weight is above 0"):
        refused(weights=["code:0"])
    with pytest.raises(ConfigError, match="web has no weight"):
        refused(weights=["code:1"], epochs=["web:2"])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=4),
    shares=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
    target=st.integers(1, 3000),
)
def test_a_plan_adds_up(sizes: list[int], shares: list[float], target: int) -> None:
    names = [f"s{i}" for i in range(len(sizes))]
    survey = mixture.Survey(names, 1)
    for name, size in zip(names, sizes, strict=True):
        for i in range(size):
            survey.add(Document(f"{name}-{i}", "ab", "g", name))
    settings_ = Mixture([f"{n}:{w}" for n, w in zip(names, shares, strict=False)], target, max_epochs=1e9)
    found = mixture.plan(settings_, survey, lambda texts: sum(map(len, texts)), 2, "stages.tokens")
    assert [s.available for s in found] == [4 * size for size in sizes]
    assert abs(sum(s.wanted for s in found) - target) <= len(sizes)
    for share in found:
        keys = [mixture.key(str(i), 7) for i in range(300)]
        for key in keys[:20]:
            times = sum(share.takes(key, epoch) for epoch in range(share.whole + 3))
            assert times in (share.whole, share.whole + 1)
