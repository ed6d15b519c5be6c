"""Rules, readers, kinds of stages and objectives from packages outside this one, in the same tables as ours.

A plug-in is a module with a function `register(registry)`:

    @dataclass
    class Vowels:
        min_share: float = 0.2

    def register(registry):
        registry.rule("vowels", Vowels, make)       # make(settings) -> callable(document) -> Drop | None
        registry.reader(".csv", read)               # read(data, unit, on_hash) -> iterator of documents and faults
        registry.kind(Count())                      # a kind of stage: fmtrain.kinds.base.Kind, with a worker of its own
        registry.objective(Focal, make_focal)       # make_focal() -> fmtrain.objectives.base.Objective; imports torch

It is named in `plugins=[my_pkg.rules]`, or found by itself through the entry-point group `fmtrain.plugins`. The
launching side imports it to know its settings, so heavy imports belong inside such functions. A rule's settings then
stand under `filter.vowels`, and `filter.rules=[vowels]` applies it.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import KINDS, Kind, Stage
from fmtrain.kinds.base import register as add_kind
from fmtrain.kinds.objectives import Objective
from fmtrain.schema.options import OPTIONS, options
from fmtrain.schema.rules import Filter

GROUP = "fmtrain.plugins"
RULES: dict[str, Callable[[Any], Any]] = {}  # rule -> its maker
READERS: dict[str, Callable[..., Any]] = {}  # file suffix -> its reader
OBJECTIVES: dict[str, Callable[[], Any]] = {}  # objective -> what makes its training side
_ORIGIN: dict[str, str] = {}  # rule, suffix, `kind NAME`, `objective NAME` -> the module that registered it
_done: set[str] = set()


@dataclasses.dataclass
class Plugin:
    """A package of rules, readers, kinds or objectives outside this one, as it was when the run was planned."""

    module: str
    package: str
    version: str
    source: str  # SHA-256 of its modules' files


class Registry:
    """What a plug-in's `register` is given."""

    def __init__(self, module: str) -> None:
        self.module = module

    def rule(self, name: str, settings: type, make: Callable[[Any], Any]) -> None:
        """A rule under `filter.NAME` with the fields of the dataclass `settings`, each with a default."""
        current = _filter_class()
        if not dataclasses.is_dataclass(settings):
            raise ConfigError(f"plug-in {self.module}: the settings of rule {name!r} are no dataclass")
        if not name.isidentifier() or name in {f.name for f in dataclasses.fields(current)}:
            raise ConfigError(
                f"plug-in {self.module}: {name!r} is no name for a rule, or stands already; choose another"
            )
        field = (name, settings, dataclasses.field(default_factory=settings))
        wider = dataclasses.make_dataclass("Filter", [field], bases=(current,))
        wider.__module__, wider.__doc__ = Filter.__module__, Filter.__doc__
        OPTIONS[Filter] = dict.fromkeys(OPTIONS[Filter], wider)
        RULES[name], _ORIGIN[name] = make, self.module

    def kind(self, kind: Kind) -> None:
        """A kind of stage: `stages.NAME.kind` may be its name."""
        if kind.name in KINDS or kind.config.kind != kind.name:
            raise ConfigError(
                f"plug-in {self.module}: a kind {kind.name!r} stands already, or its settings' `kind` is another; "
                "choose another name"
            )
        add_kind(kind)
        _ORIGIN[f"kind {kind.name}"] = self.module

    def objective(self, config: type[Objective], make: Callable[[], Any]) -> None:
        """An objective: its settings with their default `name`, and what gives its collate and loss to a training."""
        name = config().name
        if name in OPTIONS[Objective] or not dataclasses.is_dataclass(config):
            raise ConfigError(f"plug-in {self.module}: an objective {name!r} stands already; choose another name")
        options(Objective, **{name: config})
        OBJECTIVES[name], _ORIGIN[f"objective {name}"] = make, self.module

    def reader(self, suffix: str, read: Callable[..., Any]) -> None:
        """A reader of files whose name ends in `suffix`, e.g. ".csv"."""
        if not suffix.startswith(".") or suffix in READERS:
            raise ConfigError(f"plug-in {self.module}: {suffix!r} is no file suffix, or has a reader already")
        READERS[suffix], _ORIGIN[suffix] = read, self.module


def _filter_class() -> type:
    return next(iter(OPTIONS[Filter].values()))


@functools.cache
def installed() -> tuple[str, ...]:
    """The modules that installed packages offer through the entry-point group, as the process found them."""
    return tuple(sorted(e.value.partition(":")[0] for e in importlib.metadata.entry_points(group=GROUP)))


def register(modules: Iterable[str]) -> bool:
    """Import plug-ins and let them register; True where one was new. ConfigError names what cannot be imported."""
    new = [m for m in dict.fromkeys(modules) if m not in _done]
    for name in new:
        try:
            module = importlib.import_module(name)
        except (ImportError, ValueError, TypeError) as e:  # the latter two of what is no module's name
            raise ConfigError(
                f"plugins: {name!r} cannot be imported ({e}); install its package beside fmtrain, or put its folder "
                "into PYTHONPATH"
            ) from e
        if not callable(getattr(module, "register", None)):
            raise ConfigError(f"plugins: the module {name!r} has no function register(registry)")
        module.register(Registry(name))
        _done.add(name)
    return bool(new)


def reader_of(file: str) -> str | None:
    """The longest suffix of `file` that a plug-in reads, or None."""
    return max((suffix for suffix in READERS if file.endswith(suffix)), key=len, default=None)


def used(rules: Iterable[str], files: Iterable[str]) -> list[Plugin]:
    """The plug-ins behind these rules and the readers of these files, as they are now: what enters the fingerprint."""
    keys = {*rules, *filter(None, map(reader_of, files))}
    return [describe(module) for module in sorted({_ORIGIN[key] for key in keys if key in _ORIGIN})]


def behind(cfg: Stage) -> list[Plugin]:
    """The plug-ins that a stage's kind and its objective come of, as they are now."""
    objective = getattr(cfg, "objective", None)
    keys = [f"kind {cfg.kind}", f"objective {getattr(objective, 'name', '')}"]
    return [describe(module) for module in sorted({_ORIGIN[key] for key in keys if key in _ORIGIN})]


def narrowed(config: Filter) -> Filter:
    """The same without the settings of rules that are not applied: they belong to no corpus."""
    ours = {f.name for f in dataclasses.fields(Filter)}
    fields = [f for f in dataclasses.fields(config) if f.name not in ours and f.name in config.rules]
    kind: type = Filter
    if fields:
        added = [(f.name, f.type, dataclasses.field(default_factory=f.default_factory)) for f in fields]
        kind = dataclasses.make_dataclass("Filter", added, bases=(Filter,))
    applied = [f.name for f in dataclasses.fields(kind) if f.name in config.rules or f.name not in config.known()]
    made: Filter = kind(**{name: getattr(config, name) for name in applied})
    return made


def describe(module: str) -> Plugin:
    """A plug-in's package, version and the hash of its source."""
    top = module.split(".")[0]
    packages = importlib.metadata.packages_distributions().get(top, [])
    version = importlib.metadata.version(packages[0]) if packages else "0"
    digest = hashlib.sha256()
    path = Path(sys.modules[top].__file__ or sys.modules[module].__file__ or "")  # a namespace package has no file
    for source in sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]:
        digest.update(source.relative_to(path.parent).as_posix().encode() + b"\0" + source.read_bytes())
    return Plugin(module, packages[0] if packages else top, version, digest.hexdigest())


def verify(planned: Iterable[Plugin]) -> None:
    """In a worker: register the plug-ins that a stage was planned with; ConfigError where one has changed since."""
    for plugin in planned:
        register([plugin.module])
        now = describe(plugin.module)
        if now.source != plugin.source:
            raise ConfigError(
                f"plug-in {plugin.module} is not the one this run was planned with (version {now.version}, planned "
                f"{plugin.version}): is another one installed on this machine? Run the same command again to plan anew"
            )
