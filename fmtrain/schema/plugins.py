"""What packages outside this one add, in the same tables as ours: rules, readers, forms of rows, kinds of stages,
objectives, shapes of models, optimizers.

A plug-in is a module with a function `register(registry)`:

    @dataclass
    class Vowels:
        min_share: float = 0.2

    def register(registry):
        registry.rule("vowels", Vowels, make)       # make(settings) -> callable(document) -> Drop | None
        registry.reader(".csv", read)               # read(data, unit, on_hash) -> iterator of documents and faults
        registry.kind(Count())                      # a kind of stage: fmtrain.kinds.base.Kind, with a worker of its own
        registry.objective(Focal, make_focal)       # make_focal() -> fmtrain.objectives.base.Objective; imports torch
        registry.model(Wide, build)                 # build(settings, tokenizer) -> a transformers model
        registry.optimizer(Lion, make_lion)         # make_lion(settings, parameters) -> torch.optim.Optimizer
        registry.rows("alpaca", ("instruction", "output"), "prompt_completion", convert)    # convert(row) -> row

It is named in `plugins=[my_pkg.rules]`, or found by itself through the entry-point group `fmtrain.plugins`. The
launching side imports it to know its settings, so heavy imports belong inside such functions. A rule's settings then
stand under `filter.vowels`, and `filter.rules=[vowels]` applies it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import KINDS, Kind
from fmtrain.kinds.base import register as add_kind
from fmtrain.kinds.objectives import Objective
from fmtrain.schema import rows
from fmtrain.schema.fields import MISSING
from fmtrain.schema.options import OPTIONS, chooser, options
from fmtrain.schema.rules import Filter
from fmtrain.schema.training import Model, Optim

GROUP = "fmtrain.plugins"
RULES: dict[str, Callable[[Any], Any]] = {}  # rule -> its maker
READERS: dict[str, Callable[..., Any]] = {}  # file suffix -> its reader
OBJECTIVES: dict[str, Callable[[], Any]] = {}  # objective -> what makes its training side
MODELS: dict[str, Callable[[Any, Any], Any]] = {}  # model -> what draws it at random
OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {}
CLASSES: dict[str, str] = {}  # module that tells transformers the classes of a plug-in's models -> the plug-in
_ORIGIN: dict[Any, str] = {}  # rule, suffix, form of rows, class of settings -> the module that registered it
_done: set[str] = set()


@dataclasses.dataclass
class Plugin:
    """A package outside this one, as it was when the run was planned."""

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
        _ORIGIN[kind.config] = self.module

    def objective(self, config: type[Objective], make: Callable[[], Any]) -> None:
        """An objective: its settings with their default `name`, and what gives its collate and loss to a training."""
        OBJECTIVES[self._option(Objective, config)] = make

    def model(self, config: type[Model], make: Callable[[Any, Any], Any], classes: str = "") -> None:
        """A shape of a model that is drawn at random: its settings with their default `name`; `make`, given these and
        the tokenizer, builds it with transformers.

        `classes` is the module that tells transformers' Auto classes of a class of its own, imported where it is built
        or read.
        """
        MODELS[self._option(Model, config)] = make
        if classes:
            CLASSES[classes] = self.module

    def optimizer(self, config: type[Optim], make: Callable[[Any, Any], Any]) -> None:
        """An optimizer: its settings with their default `name`; `make`, given these and the parameters, is torch's."""
        OPTIMIZERS[self._option(Optim, config)] = make

    def rows(self, name: str, keys: Iterable[str], form: str, convert: Callable[[dict[str, Any]], Any]) -> None:
        """A form of fine-tuning rows: the keys by which a row is known for one, and what makes of it a row of our
        `form`: messages, prompt_completion or preference. A ValueError of `convert` is why a row is left out."""
        if name in rows.FOREIGN or name in rows.OURS or form not in rows.OURS or isinstance(keys, str) or not keys:
            raise ConfigError(
                f"plug-in {self.module}: rows {name!r} need a name of their own, keys, and a form among "
                f"{', '.join(rows.OURS)}"
            )
        rows.FOREIGN[name] = rows.Foreign(tuple(keys), form, convert)
        _ORIGIN[f"rows {name}"] = self.module

    def _option(self, base: type, config: type) -> str:
        """The name of a class of settings, once it stands among the options of its base."""
        name = getattr(config(), chooser(base))
        if name in OPTIONS[base] or name == MISSING or not issubclass(config, base):
            raise ConfigError(
                f"plug-in {self.module}: {config.__name__} is to be a dataclass that extends {base.__name__}, whose "
                f"{chooser(base)} ({name!r}) no other has"
            )
        options(base, **{name: config})
        _ORIGIN[config] = self.module
        return str(name)

    def reader(self, suffix: str, read: Callable[..., Any]) -> None:
        """A reader of files whose name ends in `suffix`, e.g. ".csv"."""
        if not suffix.startswith(".") or suffix in READERS:
            raise ConfigError(f"plug-in {self.module}: {suffix!r} is no file suffix, or has a reader already")
        READERS[suffix], _ORIGIN[suffix] = read, self.module


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What registers within is forgotten at its end: for a process that plans more than once.

    Whoever enters has imported `fmtrain.schema.root`: what is ours would be forgotten too, if it came within.
    """
    before = _copied()
    try:
        yield
    finally:
        _put_back(before)


def _tables() -> list[Any]:
    """All that a plug-in's `register` adds to."""
    return [RULES, READERS, OBJECTIVES, MODELS, OPTIMIZERS, CLASSES, _ORIGIN, _done, KINDS, rows.FOREIGN, OPTIONS]


def _copied() -> list[Any]:
    *flat, deep = _tables()
    return [*(table.copy() for table in flat), {base: classes.copy() for base, classes in deep.items()}]


def _put_back(before: list[Any]) -> None:
    for table, was in zip(_tables(), before, strict=True):
        table.clear()
        table.update(was)


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
        before = _copied()
        try:
            module.register(Registry(name))
        except BaseException:
            _put_back(before)  # its first half would be in the way when it is tried again
            raise
        _done.add(name)
    return bool(new)


def register_found(modules: Iterable[str]) -> list[str]:
    """Let the installed plug-ins and these register, as far as they can be imported; those that cannot.

    For a model that is read, which misses one only where its class is that one's own.
    """
    lost = []
    for module in [*installed(), *modules]:
        try:
            register([module])
        except ConfigError:
            lost.append(module)
    return lost


def reader_of(file: str) -> str | None:
    """The longest suffix of `file` that a plug-in reads, or None."""
    return max((suffix for suffix in READERS if file.endswith(suffix)), key=len, default=None)


def used(rules: Iterable[str], files: Iterable[str]) -> list[Plugin]:
    """The plug-ins behind these rules and the readers of these files, as they are now: what enters the fingerprint."""
    keys = {*rules, *filter(None, map(reader_of, files))}
    return [describe(module) for module in sorted({_ORIGIN[key] for key in keys if key in _ORIGIN})]


def behind(*settings: Any, forms: Iterable[str] = ()) -> list[Plugin]:
    """The plug-ins that classes of settings, groups within them too, and forms of rows come of, as they are now."""
    keys = {type(one) for group in settings for one in _groups(group)} | {f"rows {form}" for form in forms}
    return [describe(module) for module in sorted({_ORIGIN[key] for key in keys if key in _ORIGIN})]


def knowing(modules: Iterable[str]) -> list[Plugin]:
    """Those of these plug-ins that have classes of models of their own: whoever reads such a model needs them."""
    return [describe(module) for module in sorted(set(modules) & set(CLASSES.values()))]


def _groups(settings: Any) -> Iterator[Any]:
    """A dataclass, and every other within it."""
    if dataclasses.is_dataclass(settings):
        yield settings
        for field in dataclasses.fields(settings):
            yield from _groups(getattr(settings, field.name))


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
