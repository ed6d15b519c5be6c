"""`fmtrain run --from FOLDER`: whether a run would make a published folder again, and if not, why.

It is the recipe in that folder, with the files of this machine that are known to be the same by their bytes. What is
missing is named before anything is planned; where an identity would be another, nothing is made.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fmtrain import redact
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.stage import RECIPE, Source
from fmtrain.artifacts.storage import expanded, read_json, sha256_file
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError, FmtrainError, InputError
from fmtrain.schema.root import Root
from launch import provenance
from launch.asked import HERE, Setting, is_path, settings
from launch.edges import Pin
from launch.graph import Folder, Graph
from launch.overrides import parse
from launch.paths import match
from launch.plan import Step
from launch.reasons import why

LINEAGE = "lineage.json"
_REFERENCE = re.compile(r"(?<!\\)\$\{")
_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Published:
    """A published folder that a run is to make again."""

    folder: Path
    lineage: dict[str, Any]

    @property
    def recipe(self) -> str:
        """The override that says its recipe."""
        return "recipe='" + str(self.folder / RECIPE).replace("'", "\\'") + "'"

    def check_recipe(self, overrides: list[str]) -> None:
        """A stranger may have written it. ConfigError where it would put what stands in this user's environment
        somewhere, or say where and how to run; InputError where it cannot be read."""
        try:
            recipe = yaml.safe_load((self.folder / RECIPE).read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError, OSError) as e:
            raise InputError(f"--from={self.folder}: {RECIPE} cannot be read ({e}); get the folder again") from None
        if foreign := sorted({*HERE, "defaults", "hydra"} & set(recipe if isinstance(recipe, dict) else ())):
            raise ConfigError(
                f"--from={self.folder}: its recipe says {', '.join(foreign)}, which no published one does: where and "
                "how to run is for you to say. Take that out of it, or get the folder again"
            )
        said = {override.key_or_group for override in parse(overrides)}
        for key, value in _texts(recipe):
            over = any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in said)
            if _REFERENCE.search(value) and not over:
                setting = key.partition("[")[0]
                raise ConfigError(
                    f"--from={self.folder}: its recipe has {setting}={value}, and what stands in your environment is "
                    f"for you to give: {setting}=.."
                )

    def check_inputs(self, root: Root) -> None:
        """InputError that names every file and folder which is not where the configuration says."""
        lacking = [s for s in settings(root) if not all(_is_there(value, s) for value in s.values)]
        if not lacking:
            return
        lines = [f"  {s.key}={','.join(s.values)}{self._known(s)}" for s in lacking]
        mend = " ".join(f"{s.key}=.." for s in lacking)
        raise InputError(
            f"{self.folder} was made of what is not here:\n" + "\n".join(lines) + f"\nSay where it lies: {mend}"
        )

    def _known(self, setting: Setting) -> str:
        """What is recorded of the files behind a setting."""
        if setting.key.endswith("model.path"):
            files = sorted(self._base().items(), key=lambda file: not file[0].endswith(".safetensors"))
        else:
            names = {os.path.basename(value) for value in setting.values}
            every = [file for one in self.lineage["ancestors"] for file in one.get("files", [])]
            chosen = [file for file in every if os.path.basename(file["name"]) in names] or every
            files = [(f"{file['name']} ({file['bytes']} bytes)", file["sha256"]) for file in chosen]
        told = [f"{name}, SHA-256 {digest[:16]}.." for name, digest in files[:_NAMED]]
        more = [f"{len(files) - _NAMED} more"] if len(files) > _NAMED else []
        return f": {'; '.join([*told, *more])}" if told else ""

    def _base(self) -> dict[str, str]:
        """Name -> SHA-256 of the files of the base."""
        return dict((self.lineage.get("base") or {}).get("files") or {})

    def recognise(self, graph: Graph) -> None:
        """Take the big files that were read then for those, whatever their times, where every byte is the same."""
        known = {
            (file["name"], file["bytes"]): file
            for one in self.lineage["ancestors"]
            for file in one.get("files", [])
            if file["sha256"]
        }
        for node in graph.nodes:
            node.sources = [_recognised(source, known.get((source.name, source.size))) for source in node.sources]

    def check_pins(self, graph: Graph, store: Store) -> None:
        """InputError that names the versions which the run started from and this store does not have."""
        lacking = dict[str, None]()
        for node in graph.nodes:
            for pin in [origin for origin in node.parents.values() if isinstance(origin, Pin)]:
                try:
                    store.get(pin.ref, *pin.kinds)
                except ConfigError:
                    lacking[f"  {pin.key}={pin.ref}{self._identity(pin.ref)}"] = None
        if lacking:
            raise InputError(
                f"{self.folder} was made of versions that {store.root} does not have, as another run made them:\n"
                + "\n".join(lacking)
                + "\nMake them there, or give others"
            )

    def _identity(self, ref: str) -> str:
        known = next((one for one in self.lineage["ancestors"] if one["ref"] == ref), None)
        return f": a {known['kind']}, identity {known['fingerprint']}" if known else ""

    def check_same(self, steps: list[Step]) -> None:
        """ConfigError where something else than this folder would be made."""
        if found := self.differences(steps):
            raise ConfigError(
                f"this would not make {self.lineage['name']} again: {'; '.join(found)}. To make what it says all the "
                f"same, run the recipe itself: fmtrain run recipe={self.folder / RECIPE} .."
            )

    def differences(self, steps: list[Step]) -> list[str]:
        """In which stages this plan would make something else, and why; none where every identity is the same."""
        found = self._other_base(steps)
        by_stage = {(step.node.stage, step.node.kind.makes): step for step in steps}
        for one in self.lineage["ancestors"]:
            step = by_stage.get((one["stage"], one["kind"]))
            if step is not None and step.fingerprint != one["fingerprint"]:
                reason = (
                    why(one["payload"], redact.shown_in(step.payload)) if one.get("payload") else "another identity"
                )
                found.append(f"{step.node.stage}: {reason}")
        ours = [
            step for step in steps if step.node.kind.makes == "published" and step.node.name == self.lineage["name"]
        ]
        if not ours:
            found.append(f"no stage of this run publishes {self.lineage['name']}")
        elif not found and ours[0].fingerprint != self.lineage["fingerprint"]:
            found.append(f"{ours[0].node.stage}: {self._parents(ours[0])}")
        return found

    def _other_base(self, steps: list[Step]) -> list[str]:
        """A word where the folder that is given for the base is another."""
        base = self._base()
        trained = [step.parents["model"] for step in steps if step.node.kind.ranks and "model" in step.parents]
        for folder in [parent for parent in trained if isinstance(parent, Folder)]:
            files = {file.name: file.sha256 for file in folder.files}
            if changed := sorted(n for n in base.keys() | files.keys() if base.get(n) != files.get(n)) if base else []:
                return [f"{folder.path} is another base ({', '.join(changed[:_NAMED])} differ)"]
        return []

    def _parents(self, step: Step) -> str:
        then = {role: one.get("fingerprint") for role, one in self.lineage["inputs"].items()}
        changed = sorted(role for role in then.keys() | step.prints.keys() if then.get(role) != step.prints.get(role))
        return f"new {', '.join(changed)}" if changed else "its settings, or what its kind makes, are others"

    def said(self, steps: list[Step]) -> list[str]:
        """For whoever plans: whether every identity is the same, and which libraries are not."""
        found, others = self.differences(steps), self.others()
        lines = [f"not what {self.folder} is:", *(f"  {line}" for line in found)] if found else [
            f"every identity is that of {self.folder}"
        ]  # fmt: skip
        return lines + ([f"it was made with {', '.join(others)}: the last digits may differ"] if others else [])

    def others(self) -> list[str]:
        """Packages that were of another version then, as `torch 2.13.0, here 2.11.0`."""
        then = (self.lineage.get("made_with") or {}).get("packages") or {}
        here = provenance.packages()
        return [f"{n} {then[n]}, here {here.get(n, 'none')}" for n in then if then[n] != here.get(n)]


def _is_there(value: str, setting: Setting) -> bool:
    """Whether there is something behind a setting on this machine; of a name elsewhere that is taken for granted."""
    if is_url(value) or (setting.named and not is_path(value, True)):
        return True
    where = os.path.abspath(os.path.expanduser(value))
    return os.path.lexists(where) or bool(match(where))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration, with its key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _texts(inner, f"{key}[{n}]")
    elif isinstance(value, str):
        yield key, value


def _recognised(source: Source, then: dict[str, Any] | None) -> Source:
    if then is None or source.sha256 or is_url(source.path) or source.stamp == then["stamp"]:
        return source
    if os.path.isdir(source.path) or sha256_file(Path(source.path)) != then["sha256"]:
        return source
    return dataclasses.replace(source, elsewhere=then["stamp"])


def published(given: Path) -> Published:
    """The folder that --from names; InputError where it says nothing of how it was made."""
    folder = expanded(given, f"--from={given}").absolute()
    if not (folder / RECIPE).is_file() or not (folder / LINEAGE).is_file():
        raise InputError(
            f"--from={given}: no {RECIPE} and {LINEAGE} there; give a folder that fmtrain has published "
            "(`fmtrain models` names those of a store)"
        )
    try:
        lineage = read_json(folder / LINEAGE)
        found = Published(folder, lineage)
        for one in lineage["ancestors"]:
            _ = one["stage"], one["kind"], one["ref"], one["fingerprint"]
            _ = [(file["name"], file["bytes"], file["stamp"], file["sha256"]) for file in one.get("files", [])]
        _ = lineage["name"], lineage["fingerprint"], [one.get("fingerprint") for one in lineage["inputs"].values()]
        _ = {**found._base(), **((lineage.get("made_with") or {}).get("packages") or {})}
        return found
    except (KeyError, TypeError, AttributeError, FmtrainError) as e:
        raise InputError(f"--from={given}: {LINEAGE} is not one of ours ({e}); get the folder again") from None
