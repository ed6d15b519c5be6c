"""Which stage takes what: what stands already needs no corpus, and pins are checked in every case."""

from pathlib import Path

import pytest

from fmtrain.errors import ConfigError
from launch.compose import compose
from launch.graph import Pin, build

TOKENS = ["recipe=tokens", "data.modules=[json]"]


def parents(overrides: list[str]) -> dict[str, dict[str, object]]:
    return {node.stage: dict(node.parents) for node in build(compose(overrides)).nodes}


def test_a_corpus_is_needed_only_by_what_is_made_of_it(tmp_path: Path) -> None:
    for name in ("d.bin", "d.idx", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert parents(TOKENS)["tokens"] == {"corpus": "corpus", "tokenizer": "tokenizer"}
    taken = [*TOKENS, "tokenizer=hf", f"tokenizer.path={tmp_path}"]
    assert parents(taken)["tokenizer"] == {"corpus": "corpus"}  # to be measured on
    assert parents([*taken, "stages.corpus=null", "stages.tokens=null"]) == {"tokenizer": {}}
    megatron = f"stages.tokens.from_megatron={tmp_path}/d.*"
    assert parents([*taken, megatron])["tokens"] == {"tokenizer": "tokenizer"}
    assert parents([*taken, megatron, "stages.corpus=null"])["tokens"] == {"tokenizer": "tokenizer"}
    with pytest.raises(ConfigError, match="stages.tokenizer needs a corpus"):
        parents([*TOKENS, "stages.corpus=null"])


def test_an_earlier_corpus_is_a_pin_of_its_own() -> None:
    assert parents([*TOKENS, "dedup.against=corpus@v1"])["corpus"] == {
        "earlier": Pin("corpus@v1", "corpus", "dedup.against", None)
    }
    for against in ([], ["dedup.against=corpus@v1"]):
        with pytest.raises(ConfigError, match=r"stages\.corpus\.inputs\.model=a@v1: stage corpus takes"):
            parents([*TOKENS, *against, "stages.corpus.inputs.model=a@v1"])
