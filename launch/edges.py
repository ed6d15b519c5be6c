"""Which stage feeds which. An input that is not named is the nearest stage before that makes what the role takes.

Edges order the run; the order in which stages are written breaks ties. What the data has nothing for is left out, with
what descends from it. Reads no file but through `find` and `parts`, and no store.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fmtrain.artifacts.hub import parse
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import MODELS, At, Parts, Role, Stage, of
from fmtrain.schema.fields import MISSING
from fmtrain.schema.root import Root
from fmtrain.schema.sources import Data

_OR_FOLDER = ", or give a model: model=hf model.path=OWNER/NAME (on the hub) or DIR"
_VERSION = re.compile(r"[^/@]+@v[0-9]+")


@dataclass(frozen=True)
class Pin:
    """A version in the store that a setting names: `stages.sft.inputs.model=pretrain@v1`."""

    ref: str
    kinds: tuple[str, ...]
    key: str = field(compare=False)  # the setting
    stage: str | None = field(compare=False)  # the stage of this run that would have been taken


@dataclass(frozen=True)
class Path:
    """A folder that is no artifact of ours: `model.path=DIR`, `inputs.model=./DIR`; or a model on the hub by name."""

    path: str
    may_be_hub: bool = False  # spelled as OWNER/NAME[@REVISION]; a folder of that name, where there is one, comes first

    @classmethod
    def of(cls, given: str) -> "Path":
        """In the one spelling that a folder has here."""
        if parse(given):
            return cls(given, True)
        return cls(given if given == MISSING else os.path.normpath(os.path.expanduser(given)))


Origin = str | Pin | Path  # a str is a stage of this run


@dataclass
class Edges:
    """The stages of a run in the order that they are made in, with what feeds each."""

    at: dict[str, At]
    inputs: dict[str, dict[str, Origin]]
    left_out: dict[str, str] = field(default_factory=dict)  # stage -> why


def resolve(
    root: Root,
    find: Callable[[Data], list[Source]] = lambda data: [],
    parts: Callable[[At], Parts | None] = lambda at: None,
) -> Edges:
    """Edges of what can be made; ConfigError names what cannot be fed. `find` and `parts` look into the data."""
    stages = {name: stage for name, stage in root.stages.items() if stage is not None}
    gone: dict[str, str] = {}
    while True:  # until nothing more is left out or implied
        known = {name: stage for name, stage in stages.items() if name not in gone}
        fed: dict[str, dict[str, str]] = {}
        at = {name: At(name, stage, root, known, find, fed) for name, stage in known.items()}
        resolver = _Resolver(stages, at, gone, {name: parts(one) for name, one in at.items()})
        inputs = resolver.inputs()
        if not (resolver.newly or resolver.implied):
            break
        gone |= resolver.newly
        stages = _with(stages, resolver.implied)
    order = _ordered(inputs)
    for name in order:
        fed[name] = {role: origin if isinstance(origin, str) else "" for role, origin in inputs[name].items()}
    for name in order:
        of(at[name].cfg).check_inputs(at[name], fed[name], resolver.lacking.get(name, {}))
    return Edges({name: at[name] for name in order}, inputs, gone)


class _Resolver:
    def __init__(
        self, stages: dict[str, Stage], at: dict[str, At], gone: dict[str, str], parts: Mapping[str, Parts | None]
    ) -> None:
        self.stages, self.at, self.gone, self.parts = stages, at, gone, parts
        self.implied: dict[str, tuple[str, Stage]] = {}  # stage -> the stage that asks for it, its settings
        self.newly: dict[str, str] = {}  # left out now, and why
        self.lacking: dict[str, dict[str, str]] = {}  # stage -> role -> why nothing fills it
        self.found: dict[str, dict[str, Origin]] = {}

    def inputs(self) -> dict[str, dict[str, Origin]]:
        """Of every stage; those that take all that there are come last, when it is known what descends from them."""
        for at in self.at.values():
            self.found[at.name] = self._inputs(at)
        for at in self.at.values():
            for role in of(at.cfg).roles(at) if at.name not in self.newly else []:
                if role.many and not at.cfg.inputs.get(role.name):
                    self.found[at.name] |= {f"{role.name}.{name}": name for name in self._all(at, role)}
        return self.found

    def _inputs(self, at: At) -> dict[str, Origin]:
        kind, found = of(at.cfg), dict[str, Origin]()
        if why := kind.absent(at):
            self.newly[at.name] = why
            return found
        roles = {role.name: role for role in kind.roles(at)}
        for name, refs in at.cfg.inputs.items():
            if name not in roles:
                takes = ", ".join(roles) or "no inputs"
                raise at.fail(f".inputs.{name}={','.join(refs or [])}: stage {at.name} takes {takes}, not {name}")
        for role in sorted(roles.values(), key=lambda role: bool(role.agrees)):  # by what the others are
            found |= self._fill(at, role, found)
        for name, (ref, key) in kind.pins(at).items():
            found[name] = Pin(ref, (kind.makes,), key, None)
        return found

    def _fill(self, at: At, role: Role, others: dict[str, Origin]) -> dict[str, Origin]:
        if given := at.cfg.inputs.get(role.name) or []:
            return self._given(at, role, given)
        if role.many:
            return {}
        makers = [name for name in self._before(at, role) if name not in self.gone]
        why = {name: self._lacks(name, role) for name in makers}
        makers = [name for name in makers if not why[name]]
        agreeing = [name for name in makers if self._agrees(name, role, others)]
        if role.implied and not agreeing:
            return self._imply(at, role, others)
        if makers:
            fitting = [name for name in agreeing if of(at.cfg).fits(at, role.name, self.stages[name])]
            return {role.name: (fitting or agreeing or makers)[-1]}
        model = of(at.cfg).model(at) if role.folder else None
        if model is not None and model.folder is not None:
            return {role.name: _folder(model.folder)}
        reasons = [self.gone[n] for n in self._before(at, role) if n in self.gone] + [w for w in why.values() if w]
        if reasons and not role.optional:
            self.newly[at.name] = reasons[-1]
        elif reasons:
            self.lacking.setdefault(at.name, {})[role.name] = reasons[-1]
        elif not role.optional:
            raise at.fail(
                f" needs a {role.name}, and no stage of this run makes one; "
                f"pin one: {at.key}.inputs.{role.name}=NAME@vN{_OR_FOLDER if role.folder else ''}"
            )
        return {}

    def _agrees(self, name: str, role: Role, others: dict[str, Origin]) -> bool:
        """Whether a stage is fed by what this one is fed by, where that must be so."""
        return all(self.found.get(name, {}).get(one) == others.get(one) for one in role.agrees)

    def _imply(self, at: At, role: Role, others: dict[str, Origin]) -> dict[str, Origin]:
        """Have a stage added before this one, fed by the same."""
        shared = {one: origin for one in role.agrees if (origin := others.get(one)) is not None}
        if len(shared) < len(role.agrees) or self.implied:  # it cannot be fed itself, or another serves both
            return {}
        named = {one: [_ref(origin)] for one, origin in shared.items()}
        name = f"{at.name}_{role.name}"
        while name in self.stages:
            name += "_"
        self.implied[name] = (at.name, of(at.cfg).implied(at, role.name, named))
        return {}

    def _given(self, at: At, role: Role, given: list[str]) -> dict[str, Origin]:
        if len(given) > 1 and not (role.many or role.several):
            raise at.fail(f".inputs.{role.name}=[{','.join(given)}]: one is taken; name one")
        there = [ref for ref in given if ref not in self.gone] if role.many else given  # of some the others are enough
        named = {ref: self._named(at, role, ref) for ref in there or given}
        keys = [os.path.basename(ref.rstrip("/")) if role.many else ref for ref in given]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise at.fail(f".inputs.{role.name}=[{','.join(given)}]: two are called {twice[0]}; name each once")
        if role.many:
            return {f"{role.name}.{os.path.basename(ref.rstrip('/'))}": origin for ref, origin in named.items()}
        if len(named) == 1:
            return {role.name: named[given[0]]}
        return {f"{role.name}.{n}": origin for n, origin in enumerate(named.values())}

    def _before(self, at: At, role: Role) -> list[str]:
        """The stages written before that make what the role is filled with unless named, those left out too."""
        written = list(self.stages)
        return [name for name in written[: written.index(at.name)] if self._made(name) in role.kinds[:1]]

    def _all(self, at: At, role: Role) -> list[str]:
        """Every stage that makes such and does not descend from this one."""
        makers = [name for name in self.found if self._made(name) in role.kinds[:1] and name not in self.newly]
        return [name for name in makers if not self._descends(name, at.name)]

    def _descends(self, name: str, ancestor: str) -> bool:
        todo, seen = [name], set[str]()
        while todo:
            one = todo.pop()
            if one == ancestor:
                return True
            if one not in seen:
                seen.add(one)
                todo += [origin for origin in self.found.get(one, {}).values() if isinstance(origin, str)]
        return False

    def _made(self, name: str) -> str:
        """The kind of artifact that a stage makes, be it left out."""
        return of(self.stages[name]).makes

    def _lacks(self, name: str, role: Role) -> str:
        """Why the artifact of a stage does not have the part that a role asks for."""
        parts = self.parts.get(name)
        if role.part is None or parts is None or role.part in parts.has:
            return ""
        return parts.why.get(role.part, f"stages.{name} has no {role.part}")

    def _named(self, at: At, role: Role, ref: str) -> Origin:
        key = f"{at.key}.inputs.{role.name}"
        if ref in self.gone:
            self.newly[at.name] = self.gone[ref]
            return ref
        if ref in self.at:
            made = of(self.at[ref].cfg).makes
            if made not in role.kinds:
                wanted = f"is a {role.kinds[0]}" if role.kinds else "is a folder"
                raise ConfigError(f"{key}={ref}: stages.{ref} makes a {made}, and {role.name} {wanted}")
            if ref == at.name:
                raise ConfigError(f"{key}={ref}: a stage cannot feed itself; name another")
            return ref
        if _VERSION.fullmatch(ref):
            before = [name for name in self._before(at, role) if name in self.at]
            return Pin(ref, role.kinds, key, None if role.many or not before else before[-1])
        if ref.startswith(("./", "../", "/", "~")) or parse(ref):
            if role.folder:
                return Path.of(ref)
            raise ConfigError(f"{key}={ref}: a folder is no {role.name}; give a stage or NAME@vN")
        if "/" in ref:
            raise ConfigError(f"{key}={ref}: no name on the hub (OWNER/NAME@REVISION); a folder is {key}=./DIR")
        near = difflib.get_close_matches(ref, list(self.at), 1)
        mean = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{key}={ref}: there is no such stage; {mean}There are {', '.join(self.at)}; NAME@vN is a version in the "
            "store, ./DIR a folder"
        )


def _with(stages: dict[str, Stage], implied: dict[str, tuple[str, Stage]]) -> dict[str, Stage]:
    """The stages with the implied ones before those that ask for them."""
    found: dict[str, Stage] = {}
    for name, stage in stages.items():
        found |= {new: settings for new, (asking, settings) in implied.items() if asking == name}
        found[name] = stage
    return found


def _folder(given: str) -> Origin:
    """What `model.path` names: a folder, a model on the hub, or a version in the store."""
    return Pin(given, MODELS, "model.path", None) if _VERSION.fullmatch(given) else Path.of(given)


def _ref(origin: Origin) -> str:
    """What an input is named by."""
    if isinstance(origin, Path):
        return (
            origin.path if origin.may_be_hub or origin.path.startswith(("./", "../", "/", "~")) else f"./{origin.path}"
        )
    return origin.ref if isinstance(origin, Pin) else origin


def _ordered(inputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every stage after what feeds it, else as written; ConfigError names a circle."""
    done: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle = " -> ".join((*trail[trail.index(name) :], name))
            raise ConfigError(f"stages feed each other in a circle: {circle}; change one of their inputs")
        if name in done:
            return
        for origin in inputs[name].values():
            if isinstance(origin, str):
                visit(origin, (*trail, name))
        done.append(name)

    for name in inputs:
        visit(name, ())
    return done


def artifact(at: At) -> str:
    """The name of what a stage makes."""
    cfg: Stage = at.cfg
    return cfg.artifact or at.name
