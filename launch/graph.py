"""The stage graph: from a checked configuration to nodes with inputs and frozen slices.

Knows kinds of stages by their table alone; knows nothing of the store, of processes or of what a stage does.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fmtrain.artifacts.hub import parse
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import At, Kind, Parts, of
from fmtrain.schema import plugins
from fmtrain.schema.root import Root
from fmtrain.schema.sources import Data
from launch import edges
from launch.base import Use, base_files, check_base
from launch.edges import Edges, Pin
from launch.hub import Named, named, pickled, pins
from launch.recipes import place
from launch.references import absolute, referenced_files
from launch.sources import sources


@dataclass
class Folder:
    """An input that is no artifact of ours: a Hugging Face model, known by its files, in a folder or on the hub."""

    path: str  # as it was given
    files: list[Source]
    root: Path  # where its files lie, or will lie once they are fetched
    hub: Named | None = None
    pickle: bool = False

    @property
    def ref(self) -> str:
        """What it is called in what is made of it."""
        return self.hub.repo.ref if self.hub else self.path

    @property
    def told(self) -> dict[str, Any]:
        """What a manifest says of it: of a model on the hub the name, what was asked for, the commit, the licence."""
        files = {f.name: {"bytes": f.size, "sha256": f.sha256} for f in self.files}
        said: dict[str, Any] = {"path": self.path, "pickle": self.pickle, "files": files}
        if self.hub:
            repo = self.hub.repo
            said |= {"repo": repo.name, "revision": repo.asked, "commit": repo.commit, "licence": self.hub.licence}
        return said


@dataclass
class Node:
    """One stage of this run. `parents` maps a role to a stage of this run, to a pin (`NAME@vN`) or to a Folder."""

    stage: str
    kind: Kind
    name: str  # of the artifact
    job: Any
    parents: dict[str, "str | Pin | Folder"] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    unlabelled: set[str] = field(default_factory=set)  # roles of many stages whose names say nothing of the result
    agrees: dict[str, tuple[str, ...]] = field(default_factory=dict)  # role -> roles that it must have been made of too
    counts: dict[str, Callable[[str], bool]] = field(default_factory=dict)  # role -> the files of it that are read
    plugins: list[dict[str, str]] = field(default_factory=list)  # that its settings come of
    pinned: list[str] = field(default_factory=list)  # overrides that say what names on the hub stood for


@dataclass
class Graph:
    """The nodes in the order they run, what was left out and why, and what there is to say of those that stay."""

    nodes: list[Node]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)  # overrides that say the commits of models on the hub
    versions: dict[Pin, list[Use]] = field(default_factory=dict)  # what stages ask of models in the store

    @property
    def said(self) -> list[str]:
        """All that stands below a plan's table."""
        return [*self.left_out, *self.notes]


def pinned(graph: Graph) -> list[str]:
    """Overrides that say the commits found on the hub: a Slurm job plans again, later and maybe with no way there."""
    return [*graph.pinned, *(override for node in graph.nodes for override in node.pinned)]


def build(root: Root) -> Graph:
    """The run's stages with their inputs; reads and hashes the source files."""
    said = list[str]()
    find, parts = _once(lambda data: sources(data, said)), _Parts()
    found = edges.resolve(root, find, parts)
    if not found.at:
        raise ConfigError(f"no stage is left to run: {'; '.join(sorted(set(found.left_out.values())))}")
    folders = _folders(found, root, said)
    nodes = []
    for name, at in found.at.items():
        kind, inputs = of(at.cfg), found.inputs[name]
        given = kind.job(at, {role: origin if isinstance(origin, str) else "" for role, origin in inputs.items()})
        job = absolute(given, at.key)
        parents = {r: folders[o] if isinstance(o, edges.Path) else o for r, o in inputs.items()}
        node = Node(name, kind, edges.artifact(at), job, parents)
        node.sources = [*kind.reads(at), *referenced_files(job, at.key)]
        node.unlabelled = {role.name for role in kind.roles(at) if role.many and not role.labels}
        node.counts = {role.name: role.counts for role in kind.roles(at) if role.counts}
        node.parents |= {role: _narrowed(parents[role], counts) for role, counts in node.counts.items()}
        node.agrees = {role.name: role.agrees for role in kind.roles(at) if role.agrees}
        node.plugins = [asdict(plugin) for plugin in plugins.behind(at.cfg, job, forms=kind.forms(at))]
        node.pinned = kind.pinned(at, job, node.sources)
        nodes.append(node)
    notes = [f"{name}: {note}" for name, at in found.at.items() if (note := of(at.cfg).note(at, _option))]
    notes += said + [note for folder in folders.values() if (note := _away(folder))]
    versions = {o: uses(found, o) for i in found.inputs.values() for o in i.values() if isinstance(o, Pin)}
    refs = {origin.path: folder.ref for origin, folder in folders.items() if folder.hub}
    return Graph(nodes, [*_told(found.left_out), *parts.notes(found.at)], notes, pins(root, refs), versions)


def _narrowed(origin: "str | Pin | Folder", counts: Callable[[str], bool]) -> "str | Pin | Folder":
    """A folder with those of its files alone that are read."""
    if not isinstance(origin, Folder):
        return origin
    return replace(origin, files=[file for file in origin.files if counts(file.name)])


def _option(group: str, name: str) -> dict[str, Any]:
    return place(group, name, None, None)


class _Parts:
    """What the artifacts will hold, each looked up once."""

    def __init__(self) -> None:
        self.known: dict[str, Parts | None] = {}

    def __call__(self, at: At) -> Parts | None:
        if at.name not in self.known:
            self.known[at.name] = None if of(at.cfg).absent(at) else of(at.cfg).parts(at)
        return self.known[at.name]

    def notes(self, at: dict[str, At]) -> list[str]:
        return [parts.note for name in at if (parts := self.known.get(name)) and parts.note]


def _once(find: Callable[[Data], list[Source]]) -> Callable[[Data], list[Source]]:
    """`find` asked once for each data source."""
    known: dict[int, tuple[Data, list[Source]]] = {}

    def found(data: Data) -> list[Source]:
        if id(data) not in known:
            known[id(data)] = (data, find(data))
        return known[id(data)][1]

    return found


def _told(left_out: dict[str, str]) -> list[str]:
    reasons = dict.fromkeys(left_out.values())
    return [f"{', '.join(n for n, w in left_out.items() if w == why)}: left out, {why}" for why in reasons]


def _folders(found: Edges, root: Root, said: list[str]) -> dict[edges.Path, Folder]:
    """The folder that stages start from, or the model on the hub, checked against what they ask of it; what there is to
    say of it goes into `said`."""
    origins = dict.fromkeys(o for inputs in found.inputs.values() for o in inputs.values() if isinstance(o, edges.Path))
    folders = {}
    for origin in origins:
        folder = folders[origin] = _folder(origin, pickled(root, origin.path))
        said += [note] if (note := check_base(origin.path, folder.root, uses(found, origin))) else []
    return folders


def _folder(origin: edges.Path, pickle: bool) -> Folder:
    """What lies on this machine under that name, else what the hub has."""
    path = origin.path
    where = expanded(path, f"model.path={path}").absolute()
    if not origin.may_be_hub or where.is_dir():
        files = base_files(path, pickle)
        return Folder(path, files, where, pickle=pickle and not any(f.name.endswith(".safetensors") for f in files))
    model = named(path, pickle)
    unsafe = not any(f.name.endswith(".safetensors") for f in model.files)
    return Folder(path, model.files, model.repo.snapshot, model, unsafe)


def _away(folder: Folder) -> str:
    """A word on what a name stands for where that is not what one would think."""
    if folder.hub and folder.hub.repo.away:
        return folder.hub.repo.said(folder.path)
    if not folder.hub and parse(folder.path):
        return f"{folder.path} is the folder of that name here; the hub's is {folder.path}@main"
    return ""


def uses(found: Edges, origin: edges.Path | Pin) -> list[Use]:
    """What the stages ask of a model that they start from, those too whose model comes of it."""
    asked: dict[str, Use] = {}
    for name, at in found.at.items():  # what feeds a stage comes before it
        model, kind = found.inputs[name].get("model"), of(at.cfg)
        if model == origin or (isinstance(model, str) and model in asked):
            first = model == origin
            asked[name] = Use(at.key, first, kind.task(at.cfg), kind.learns_head(at.cfg), kind.row_length(at.cfg))
    return list(asked.values())
