"""A corpus: documents read, filtered, without copies, some of them held out."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Annotated

from fmtrain.artifacts.sources import BESIDE, HUB
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import At, Kind, Stage, check_heldout
from fmtrain.schema import evaluation_sets, plugins, rules
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.fields import outside, referenced
from fmtrain.schema.languages import LABELS
from fmtrain.schema.limits import Limits, Positive
from fmtrain.schema.plugins import Plugin
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Data, Local

RANGES = (  # rules with a least and a greatest value of one thing
    ("length", "chars"),
    ("length", "words"),
    ("gopher_quality", "doc_words"),
    ("gopher_quality", "avg_word_length"),
    ("code", "length"),
)
NEEDS = {  # rule -> the settings of which it needs one
    "decontaminate": ("files", "sets"),
    "classifier": ("model",),
    "bad_words": ("lists",),
    "toxicity": ("lists", "model"),
}


@dataclass
class CorpusStage(Stage):
    """Read, filter, drop duplicates, set the held-out documents apart. Without `data`, `filter`, `dedup` of its own the
    run's hold."""

    kind: str = "corpus"
    # each in the place of the run's; in the job they stand beside the stage
    data: Data | None = outside(None)  # chosen with data@stages.NAME.data=OPTION
    filter: Filter | None = outside(None)  # filter@stages.NAME.filter=OPTION
    dedup: Dedup | None = outside(None)  # dedup@stages.NAME.dedup=OPTION
    shard_mb: Annotated[int, Limits(least=1, greatest=100_000)] = 128  # of text, a file of the artifact
    keep_dropped: bool = False  # the ledger also holds the text of what was dropped
    # None: one a processor, at least four; inline one to four, by size
    tasks: Annotated[int, Limits(least=1, greatest=1_000_000)] | None = outside(None)
    heartbeat_seconds: Positive = outside(600)  # a task silent for so long is ended and tried again


@dataclass
class CorpusJob:
    """The frozen slice of a corpus stage."""

    data: Data
    filter: Filter
    dedup: Dedup
    plugins: list[Plugin] = field(default_factory=list)
    stage: CorpusStage = field(default_factory=CorpusStage)


class Corpus(Kind):
    name, config, makes, revision = "corpus", CorpusStage, "corpus", 6
    worker, code = "data_pipelines", ("data_pipelines.stages.corpus",)
    pool, seconds, per_mb = True, 2.0, 0.8

    def check(self, at: At) -> None:
        data, chosen, dedup = settings(at)
        check_heldout(data, f"{at.key}.data" if at.cfg.data else "data")
        _check_names(chosen)
        _check_rules(chosen)
        if len(set(dedup.steps)) < len(dedup.steps):
            raise ConfigError(f"dedup.steps=[{','.join(dedup.steps)}]: a step stands twice; name each once")
        if dedup.keep == "score" and "classifier" not in chosen.rules:
            raise ConfigError("dedup.keep=score needs classifier among filter.rules: it gives the score")

    def pins(self, at: At) -> dict[str, tuple[str, str]]:
        against = settings(at)[2].against
        return {} if against is None else {"earlier": (against, "dedup.against")}

    def reads(self, at: At) -> list[Source]:
        return at.find(settings(at)[0])

    def job(self, at: At, inputs: dict[str, str]) -> CorpusJob:
        data, chosen, dedup = settings(at)
        read = [source.name for source in self.reads(at)] if isinstance(data, Local) else []  # readers go by names
        stage = replace(at.cfg, data=None, filter=None, dedup=None)
        return CorpusJob(data, plugins.narrowed(chosen), dedup, plugins.used(chosen.rules, read), stage)

    def pinned(self, at: At, job: CorpusJob, sources: list[Source]) -> list[str]:
        own = {name: f"{at.key}.{name}" if getattr(at.cfg, name) else name for name in ("data", "filter")}
        hub = [s for s in sources if s.path.startswith(HUB) and not s.name.startswith(BESIDE)]
        found = [f"{own['data']}.revision='{source.stamp}'" for source in hub]
        if sets := job.filter.decontaminate.sets:
            quoted = ("'" + entry.replace("'", "\\'") + "'" for entry in sets)
            found.append(f"{own['filter']}.decontaminate.sets=[{','.join(quoted)}]")
        return found


def settings(at: At) -> tuple[Data, Filter, Dedup]:
    """The stage's own, or the run's."""
    cfg, root = at.cfg, at.root
    return cfg.data or root.data, cfg.filter or root.filter, cfg.dedup or root.dedup


def _check_names(chosen: Filter) -> None:
    """Rules stand in lists, and are checked as strictly as keys; a least value is not above the greatest."""
    known = [f.name for f in dataclasses.fields(chosen) if dataclasses.is_dataclass(f.type)]
    for rule in chosen.rules:
        if rule not in known:
            raise ConfigError(f"filter.rules: there is no rule {rule!r}; {_among(rule, known)}")
    for rule, what in RANGES:
        config = getattr(chosen, rule)
        low, high = getattr(config, f"min_{what}", 0), getattr(config, f"max_{what}", 0)
        if 0 < high < low:  # 0 as a greatest is none
            raise ConfigError(
                f"filter.{rule}.min_{what}={low} is above filter.{rule}.max_{what}={high}; change one of them"
            )


def _among(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"{f'did you mean {near[0]}? There' if near else 'there'} are {', '.join(known)}"


def _check_rules(config: rules.Filter) -> None:
    """What the chosen rules cannot do without, and shares that are none."""
    for rule, fields in NEEDS.items():
        given = [field for field in fields if getattr(getattr(config, rule), field)]
        if rule in config.rules and not given:
            raise ConfigError(f"filter.rules has {rule}, which needs filter.{rule}.{' or '.join(fields)}: give some")
    for one in referenced(config):
        rule = one.key.partition(".")[0]
        if rule not in config.rules:
            raise ConfigError(
                f"filter.{one.key} is given, and {rule} does not stand among filter.rules=[{','.join(config.rules)}]: "
                "it would not be applied. Add it, or take the setting away"
            )
    _languages(config)
    if len(config.gopher_repetition.top_n_grams) > 3:
        raise ConfigError(
            f"filter.gopher_repetition.top_n_grams={config.gopher_repetition.top_n_grams}: at most three limits, for "
            "n = 2, 3, 4; 1 is none"
        )
    labels = [evaluation_sets.parse(entry, "filter.decontaminate.sets").label for entry in config.decontaminate.sets]
    if twice := [label for label, times in Counter(labels).items() if times > 1]:
        raise ConfigError(
            f"filter.decontaminate.sets: two of {', '.join(config.decontaminate.sets)} are called {twice[0]}, and rows "
            "are named by that; name each once, or give a folder another name"
        )
    if len(set(config.rules)) < len(config.rules):
        raise ConfigError(f"filter.rules=[{','.join(config.rules)}]: a rule stands twice; name each once")
    if config.words != "fast" and not config.words.startswith("spacy-"):
        raise ConfigError(f"filter.words={config.words}: expected fast, or spacy-LANGUAGE, e.g. spacy-zh")


def _languages(config: rules.Filter) -> None:
    """Languages that the built-in detector knows, and stop words that are theirs."""
    if "language" not in config.rules:
        return
    for language in config.language.languages if config.language.model is None else []:
        if language not in LABELS:
            raise ConfigError(
                f"filter.language.languages: {language!r} is no language of the built-in detector; "
                f"{_among(language, LABELS)}. Another model's labels come with filter.language.model"
            )
    quality, english = config.gopher_quality, rules.GopherQuality().stop_words
    counted = "gopher_quality" in config.rules and quality.min_stop_words and quality.stop_words == english
    if counted and not any(language.startswith("en") for language in config.language.languages):
        raise ConfigError(
            f"filter.gopher_quality.stop_words are English, and filter.language.languages="
            f"[{','.join(config.language.languages)}]: nearly every document would go. Give words of these languages, "
            "or filter.gopher_quality.min_stop_words=0"
        )
