"""SFT and preference rows: from a file of rows, or made of the functions of a corpus of Python."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fmtrain.artifacts import hub
from fmtrain.artifacts.rows import LOOKED_AT, look
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import At, Kind, Parts, Role, Stage, check_heldout, data_of, of, seed_of
from fmtrain.schema.fields import outside
from fmtrain.schema.limits import Count, Positive, check_ranges
from fmtrain.schema.rows import FOREIGN, OURS
from fmtrain.schema.sources import Data, Rows, Stdlib


@dataclass
class ExamplesStage(Stage):
    """SFT rows and preference rows; lengths in characters."""

    kind: str = "examples"
    seed: Count | None = outside(None)  # of which functions are taken, and of what is spoilt; unless told, the run's
    min_prompt: Count = 40
    max_prompt: Positive = 1500
    min_response: Count = 60
    max_response: Positive = 2500
    max_sft_rows: Positive | None = None
    max_preference_rows: Positive | None = None
    max_heldout_rows: Positive | None = None


@dataclass
class ExamplesJob:
    seed: Count
    data: Data
    stage: ExamplesStage = field(default_factory=ExamplesStage)


class MakeExamples(Kind):
    name, config, makes, revision = "examples", ExamplesStage, "examples", 4
    worker, code = "data_pipelines", ("data_pipelines.stages.examples",)
    seconds, per_mb = 0.5, 0.45

    def check(self, at: At) -> None:
        check_heldout(at.root.data, "data")
        check_ranges(at.cfg, at.key)
        forms = (*OURS, *sorted(FOREIGN))
        for form in at.root.data.forms if isinstance(at.root.data, Rows) else []:
            if form not in forms:
                raise ConfigError(f"data.forms: {form!r} is not one of {', '.join(forms)}")

    def absent(self, at: At) -> str:
        if isinstance(at.root.data, Rows) or at.cfg.inputs.get("corpus"):
            return ""
        corpora = [name for name, stage in at.stages.items() if of(stage).makes == "corpus"]
        read = [data_of(at, name) for name in corpora] or [at.root.data]
        return "" if any(isinstance(data, Stdlib) for data in read) else _why(read[-1])

    def check_inputs(self, at: At, inputs: dict[str, str], lacking: dict[str, str]) -> None:
        if (name := inputs.get("corpus")) and not isinstance(data := data_of(at, name), Stdlib):
            raise ConfigError(f"{at.key}.inputs.corpus={name}: {_why(data)}; name another corpus")

    def roles(self, at: At) -> list[Role]:
        given = isinstance(at.root.data, Rows)
        return [] if given else [Role("corpus", ("corpus",)), Role("tokenizer", ("tokenizer",))]

    def reads(self, at: At) -> list[Source]:
        return at.find(at.root.data) if isinstance(at.root.data, Rows) else []

    def parts(self, at: At) -> Parts | None:
        """By what the beginnings of the files of rows hold."""
        data = at.root.data
        if not isinstance(data, Rows):
            return None
        known = look(data, self.reads(at))
        found = {FOREIGN[form].form if form in FOREIGN else form for form in set(data.forms) or known.forms}
        why, has = dict[str, str](), {"sft", "preference"}
        if known.whole and not known.several:
            why["heldout"] = "data.files hold one row (or the same one several times), which is trained on"
        else:
            has.add("heldout")
        if found == {"preference"}:
            has.remove("sft")
            why["sft"] = "the rows are preferences only"
        if "preference" not in found:
            has.remove("preference")
            why["preference"] = "no row has the preference form (prompt, chosen, rejected)"
        note = "" if known.whole or data.forms else (
            f"of the rows {LOOKED_AT >> 20} MiB were looked at ({', '.join(sorted(known.forms))}); where later ones "
            f"have another form say so: data.forms=[{','.join(sorted({*known.forms, 'preference'}))}]"
        )  # fmt: skip
        return Parts(frozenset(has), why, note)

    def pinned(self, at: At, job: ExamplesJob, sources: list[Source]) -> list[str]:
        data = at.root.data
        found = hub.at(sources[0].path) if isinstance(data, Rows) and data.path and sources else None
        return [f"data.path='{found[0]}@{found[1]}'", "data.revision=null"] if found else []

    def job(self, at: At, inputs: dict[str, str]) -> ExamplesJob:
        return ExamplesJob(seed_of(at), data_of(at, inputs.get("corpus")), at.cfg)

    def forms(self, at: At) -> Iterable[str]:
        data = at.root.data
        return data.forms or look(data, self.reads(at)).forms if isinstance(data, Rows) and FOREIGN else ()


def _why(data: Data) -> str:
    return f"data={data.name} holds no functions to make examples from"
