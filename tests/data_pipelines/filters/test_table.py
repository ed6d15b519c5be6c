"""A rule is one dataclass of settings and one thing that applies it, under the same name."""

import typing

import pytest

from data_pipelines.filters import RULES
from fmtrain.errors import ConfigError
from fmtrain.schema.rules import Filter, Rule

OTHERS = ("name", "rules", "words", "datatrove")
SETTINGS = {name: cls for name, cls in typing.get_type_hints(Filter).items() if name not in OTHERS}


def test_settings_and_rules_have_the_same_names() -> None:
    assert set(RULES) == set(SETTINGS) == set(Filter("x").known())
    assert all(issubclass(cls, Rule) for cls in SETTINGS.values())


@pytest.mark.parametrize("name", [name for name, cls in SETTINGS.items() if cls.needs])
def test_what_a_rule_needs_is_asked_for(name: str) -> None:
    chosen = Filter("x", [name])
    for setting in SETTINGS[name].needs:
        value = getattr(getattr(chosen, name), setting)
        setattr(getattr(chosen, name), setting, [] if isinstance(value, list) else None)
    with pytest.raises(ConfigError, match=rf"^stages\.a\.filter\.rules has {name}, which needs stages\.a\.filter\."):
        chosen.check("stages.a.filter")


@pytest.mark.parametrize(
    ("rule", "settings", "says"),
    [
        (
            "length",
            {"min_words": 9, "max_words": 8},
            r"filter\.length\.min_words=9 is above .*\.max_words=8",
        ),
        ("code", {"max_length": 99}, r"filter\.code\.min_length=100 is above filter\.code\.max_length=99"),
        ("gopher_quality", {"min_avg_word_length": 11.0}, r"min_avg_word_length=11\.0 is above .*length=10\.0"),
        ("gopher_repetition", {"top_n_grams": [0.1] * 4}, "at most three limits"),
        (
            "decontaminate",
            {"files": ["a"], "min_words": 14},
            r"min_words=14 is above .*\.n_grams=13",
        ),
    ],
)
def test_contradictions(rule: str, settings: dict[str, typing.Any], says: str) -> None:
    chosen = Filter("x", [rule])
    for name, value in settings.items():
        setattr(getattr(chosen, rule), name, value)
    with pytest.raises(ConfigError, match=says):
        chosen.check("filter")
    Filter("x", ["length"], length=type(chosen.length)(min_words=3)).check("filter")  # 0 as a greatest is none
