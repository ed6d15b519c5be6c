"""What a kind of stage is: its settings, what it takes and makes, and how it is planned and started.

Each kind is one module of this package. Kinds meet in the artifacts that they make and take; of a stage that feeds it a
kind reads no more than a setting that says how that was made (`check_inputs`). Imported wherever something is planned:
no torch, no ray here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.schema.common import Common
from fmtrain.schema.fields import MISSING, outside
from fmtrain.schema.options import options
from fmtrain.schema.sources import Data
from fmtrain.schema.training import Model

CORE = 5.5e10  # FLOP/s of a processor's core in fp32, as the quickstart reaches
MODELS = ("model", "published")  # the kinds of artifact that are a model


@dataclass
class Stage:
    """One stage of a recipe, under a name that the recipe chooses.

    `inputs` names by role what is not to be the nearest stage before this one that makes such: another stage, a version
    in the store (NAME@vN), a folder (./DIR).
    """

    kind: str = MISSING  # what it does: a row of the table of kinds
    artifact: str | None = outside(None)  # the name of what it makes; unless told, the stage's
    inputs: dict[str, list[str] | None] = outside({})  # role -> a stage, NAME@vN or ./DIR, where it is to be another


@dataclass(frozen=True)
class Role:
    """One of the inputs that a stage takes."""

    name: str
    kinds: tuple[str, ...]  # of artifact; where none is named, the first alone is looked for
    part: str | None = None  # that the artifact must have
    optional: bool = False
    many: bool = False  # all that do not descend from this stage, each an input NAME.STAGE
    labels: bool = False  # of many: their names stand in what is made, and belong to its identity
    several: bool = False  # a list may be named, and is taken in that order: NAME.0, NAME.1, ..
    folder: bool = False  # where no stage makes one, the Hugging Face folder of `model`
    agrees: tuple[str, ...] = ()  # roles of this stage that what is taken must have been made of too
    implied: bool = False  # where no stage makes one, one is added: see `Kind.implied`
    counts: Callable[[str], bool] | None = None  # which files of what is taken alone are read: identity is theirs


@dataclass(frozen=True)
class At:
    """A stage where it stands: its settings, the run's, and what stages there are."""

    name: str
    cfg: Any
    root: Common
    stages: dict[str, Any] = field(default_factory=dict)
    find: Callable[[Data], list[Source]] = lambda data: []  # the files of a data source
    fed: dict[str, dict[str, str]] = field(default_factory=dict)  # stage -> role -> stage, "" where none of this run is

    @property
    def key(self) -> str:
        return f"stages.{self.name}"

    def fail(self, text: str) -> ConfigError:
        return ConfigError(f"{self.key}{text}")


@dataclass(frozen=True)
class Parts:
    """What an artifact will hold, of what roles may ask for: of the others, why it lacks them."""

    has: frozenset[str]
    why: dict[str, str] = field(default_factory=dict)  # part -> why it is not there
    note: str = ""  # a word to say in any case


@dataclass(frozen=True)
class Amount:
    """How much a training is, by `epochs` at most so much; None where that is known only once its rows are counted."""

    steps: int | None
    epochs: float | None
    tokens: int | None  # positions that go through the model, padding too


class Kind:
    """A row of the table of kinds; raise `revision` when the same input shall give another output."""

    name: ClassVar[str]
    config: ClassVar[type[Stage]]
    makes: ClassVar[str]  # the kind of artifact
    worker: ClassVar[str]  # module started with the stage's folder
    code: ClassVar[tuple[str, ...]]  # modules whose imports are the stage's source
    revision: ClassVar[int]
    ranks: ClassVar[bool] = False  # one process a rank, rather than one in all
    hands_on: ClassVar[bool] = False  # its worker is told what was asked of the whole run
    pool: ClassVar[bool] = False  # fans out tasks over the backend's processors
    gpu: ClassVar[bool] = False  # one process, on a GPU where there is one
    seconds: ClassVar[float] = 3.0  # until it is at work
    # then, of a MB of the documents or rows that it descends from: seconds on 2 cores; of a kind that reads a model,
    # FLOPs a parameter
    per_mb: ClassVar[float] = 0.0

    def check(self, at: At) -> None:
        """ConfigError for the first contradiction among the settings."""

    def check_ranks(self, cfg: Any, key: str, ranks: int) -> None:
        """ConfigError where the settings do not go with so many ranks."""

    def check_inputs(self, at: At, inputs: dict[str, str], lacking: dict[str, str]) -> None:
        """ConfigError where what feeds the stage does not do. `inputs` as in `job`; `lacking` are roles that nothing
        fills because of a part that is not there, with the reason."""

    def absent(self, at: At) -> str:
        """Why this data has nothing for such a stage, which is then left out; "" where it has."""
        return ""

    def roles(self, at: At) -> list[Role]:
        return []

    def implied(self, at: At, role: str, inputs: dict[str, list[str]]) -> Stage:
        """The settings of a stage that fills an implied role; `inputs` are those of this stage that it shares."""
        raise NotImplementedError

    def fits(self, at: At, role: str, maker: Any) -> bool:
        """Whether what a stage of those settings makes does for the role."""
        return True

    def pins(self, at: At) -> dict[str, tuple[str, str]]:
        """Role -> (NAME@vN, the setting that says so): artifacts named elsewhere than in `inputs`."""
        return {}

    def parts(self, at: At) -> Parts | None:
        """What of its artifact not every such stage makes; None where all is there."""
        return None

    def note(self, at: At, option: Callable[[str, str], dict[str, Any]]) -> str:
        """What a plan says of it beside what will be done; "" for nothing. `option` gives what an option of a group
        starts from, as its file has it."""
        return ""

    def forms(self, at: At) -> Iterable[str]:
        """The forms of the rows that it reads, where these may be a plug-in's."""
        return ()

    def reads(self, at: At) -> list[Source]:
        """The files of documents or rows that it reads."""
        return []

    def model(self, at: At) -> Model | None:
        """The model that it starts from where no stage makes one."""
        return None

    def task(self, cfg: Any) -> str | None:
        """causal or masked: the head that it trains."""
        return None

    def pinned(self, at: At, job: Any, sources: list[Source]) -> list[str]:
        """Overrides that say what names on a hub stood for when the run was planned."""
        return []

    def learns_head(self, cfg: Any) -> bool:
        """Whether it may draw the head that its model lacks, and learn it."""
        return False

    def row_length(self, cfg: Any) -> int | None:
        """Tokens that its longest row may have, where a model's positions bound them."""
        return None

    def job(self, at: At, inputs: dict[str, str]) -> Any:
        """The frozen slice: all that the worker is told, the settings as its field `stage`. `inputs` are roles with the
        stage that fills each, "" where none of this run does."""
        raise NotImplementedError

    def amount(self, job: dict[str, Any], rows: int | None) -> Amount | None:
        """How much a job is, its slice as JSON data; `rows` that there are, where they are counted already."""
        return None


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Put a kind into the table, and its settings among those that `stages` may hold."""
    KINDS[kind.name] = kind
    options(Stage, **{kind.name: kind.config})


def of(cfg: Stage) -> Kind:
    return KINDS[cfg.kind]


def starts_from(at: At) -> Model:
    """The model that the first training starts from, which stands beside those that stages make."""
    first = next((stage for stage in at.stages.values() if hasattr(stage, "model")), None)
    return at.root.model if first is None else first.model or at.root.model


def check_heldout(data: Data, key: str) -> None:
    """ConfigError where everything would be held out."""
    if data.heldout_modulus == 1:
        raise ConfigError(f"{key}.heldout_modulus=1 sets every document apart; 20 a twentieth, 0 none")


def seed_of(at: At) -> int:
    """What a stage draws from: its own seed, or the run's."""
    own: int | None = at.cfg.seed
    return at.root.seed if own is None else own


def data_of(at: At, corpus: str | None) -> Data:
    """The data behind a corpus that a stage takes, the run's where no stage of this run makes it."""
    own = getattr(at.stages.get(corpus or ""), "data", None)
    return own or at.root.data
