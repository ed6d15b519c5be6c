"""A corpus: documents read, filtered, without copies, some of them held out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fmtrain.artifacts.sources import BESIDE, HUB
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.kinds import few
from fmtrain.kinds.base import At, Kind, Stage, check_heldout
from fmtrain.schema import plugins, splits
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.fields import outside, referenced
from fmtrain.schema.formats import form
from fmtrain.schema.limits import Limits, Positive
from fmtrain.schema.plugins import Plugin
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Data, Local

_OWN = ("data", "filter", "dedup")  # what a stage may have in the place of the run's


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
    keep_dropped: bool = False  # the ledger also holds the text that was judged, of what was dropped
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
    keys: dict[str, str] = outside({})  # data, filter, dedup -> where they stand, if not at the root

    def key(self, name: str) -> str:
        """Where settings stand in the configuration, for messages."""
        return self.keys.get(name, name)


class Corpus(Kind):
    name, config, makes, revision = "corpus", CorpusStage, "corpus", 8
    worker, code = "data_pipelines", ("data_pipelines.stages.corpus",)
    pool, seconds, per_mb = True, 2.0, 0.8

    def check(self, at: At) -> None:
        data, chosen, dedup = settings(at)
        keys = {name: _keys(at).get(name, name) for name in _OWN}
        check_heldout(data, keys["data"])
        if isinstance(data, Local):
            splits.check(data.split, f"{keys['data']}.split")
        if at.cfg.filter:  # the run's is checked with the run
            chosen.check(keys["filter"])
        if len(set(dedup.steps)) < len(dedup.steps):
            raise ConfigError(f"{keys['dedup']}.steps=[{','.join(dedup.steps)}]: a step stands twice; name each once")
        if dedup.keep == "score" and not any("score" in rule.meta for _, rule in chosen.applied()):
            scoring = [name for name in chosen.known() if "score" in getattr(getattr(chosen, name), "meta", ())]
            where = f"{' or '.join(scoring)} among {keys['filter']}.rules"
            raise ConfigError(f"{keys['dedup']}.keep=score needs {where}: it gives the score")

    def check_inputs(self, at: At, inputs: dict[str, str], lacking: dict[str, str]) -> None:
        data = settings(at)[0]
        if isinstance(data, Local):
            key, sources = _keys(at).get("data", "data"), self.reads(at)
            whole = [s for s in sources if data.split != "none" and form(s.name, s.path)[0] not in splits.KINDS]
            if whole:
                raise ConfigError(
                    f"{key}.split={data.split} cuts text files, JSON lines and Parquet, and the documents of "
                    f"{whole[0].name} are whole; read them in a corpus of their own (docs/recipes.md), without it"
                )
            few.check(data, sources, key)

    def note(self, at: At, option: Callable[[str, str], dict[str, Any]]) -> str:
        data, chosen, _ = settings(at)
        keys = {name: _keys(at).get(name, name) for name in _OWN}
        said = few.told(data, chosen, self.reads(at), keys) if isinstance(data, Local) else []
        if chosen.name == data.usual_filter and chosen.rules == option("filter", chosen.name)["rules"]:
            rules = ", ".join(chosen.rules) or "no rule"  # else somebody chose another, or other rules
            said.insert(0, f"filter={chosen.name}, as data={data.name} has it ({rules})")
        return "; ".join(said)

    def pins(self, at: At) -> dict[str, tuple[str, str]]:
        against = settings(at)[2].against
        return {} if against is None else {"earlier": (against, "dedup.against")}

    def reads(self, at: At) -> list[Source]:
        return at.find(settings(at)[0])

    def job(self, at: At, inputs: dict[str, str]) -> CorpusJob:
        data, chosen, dedup = settings(at)
        read = [source.name for source in self.reads(at)] if isinstance(data, Local) else []  # readers go by names
        stage = replace(at.cfg, **dict.fromkeys(_OWN))
        return CorpusJob(data, plugins.narrowed(chosen), dedup, plugins.used(chosen.rules, read), stage, _keys(at))

    def pinned(self, at: At, job: CorpusJob, sources: list[Source]) -> list[str]:
        hub = [s for s in sources if s.path.startswith(HUB) and not s.name.startswith(BESIDE)]
        found = [f"{job.key('data')}.revision='{source.stamp}'" for source in hub]
        sets: dict[str, list[str]] = {}
        for one in referenced(job.filter):
            if one.is_data_set:
                sets.setdefault(one.key, []).append("'" + one.value.replace("'", "\\'") + "'")
        return found + [f"{job.key('filter')}.{key}=[{','.join(entries)}]" for key, entries in sets.items()]


def settings(at: At) -> tuple[Data, Filter, Dedup]:
    """The stage's own, or the run's."""
    cfg, root = at.cfg, at.root
    return cfg.data or root.data, cfg.filter or root.filter, cfg.dedup or root.dedup


def _keys(at: At) -> dict[str, str]:
    """Where the settings stand that the stage has of its own."""
    return {name: f"{at.key}.{name}" for name in _OWN if getattr(at.cfg, name)}
