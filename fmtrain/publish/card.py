"""The model card, README.md of a published folder: what it is, how to load it, how good it is, where it came from."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmtrain import show
from fmtrain.evaluate.records import Estimate, Evaluation, PreferenceScore

_MOST_FILES = 20  # input files that the card names; lineage.json has them all
# What is known of a data source's licence; a model card never grants more than the data does.
LICENCES = {
    "stdlib": "The Python standard library, under the PSF licence version 2.",
    "local": "Files of the person who trained the model; ask them which licences the texts carry.",
    "rows": "Rows of the person who trained the model; ask them which licences the rows carry.",
}


def render(
    name: str,
    config: dict[str, Any],
    lineage: dict[str, Any],
    evaluation: Evaluation | None,
    command: Sequence[str] = (),
) -> str:
    """The card as Markdown with a YAML head. `command` is what the run was asked for by."""
    environment = Environment(
        loader=PackageLoader("fmtrain.publish", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
        finalize=show.inert,
    )
    environment.filters |= {"estimate": _estimate, "share": _share, "nats": _nats, "ours": show.Inert}
    architecture = str((config.get("architectures") or ["unknown"])[0])
    masked = architecture.endswith("ForMaskedLM")
    sources = sorted({a["data"] for a in lineage["ancestors"] if a["data"]})
    return environment.get_template("card.md.jinja").render(
        name=name,
        architecture=architecture,
        masked=masked,
        config=config,
        lineage=lineage,
        evaluation=evaluation,
        model=_published_role(evaluation, lineage),
        preferences=_best_rows(evaluation),
        licences=[LICENCES[s] for s in sources if s in LICENCES],
        corpora=[a for a in lineage["ancestors"] if a.get("licences")],
        base=lineage.get("base"),
        base_model=_on_the_hub(lineage.get("base")),
        command=show.fenced(show.line(" ".join(command)), "sh") if command else "",
        files=[(a["ref"], file) for a in lineage["ancestors"] for file in a.get("files", [])],
        most_files=_MOST_FILES,
        versions=lineage.get("made_with", {}),
    )


def _on_the_hub(base: dict[str, Any] | None) -> str | None:
    """OWNER/NAME of a base that has one, as the head of a card may name it."""
    name = str((base or {}).get("name"))
    return name if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) else None


def _published_role(evaluation: Evaluation | None, lineage: dict[str, Any]) -> str | None:
    """Which of the evaluated models this one is."""
    ref = lineage["inputs"]["model"].get("ref")
    return next((m.name for m in evaluation.models if ref and m.ref == ref), None) if evaluation else None


def _best_rows(evaluation: Evaluation | None) -> list[PreferenceScore]:
    """Preference accuracy on the held-out kinds, or on everything where no kind is held out."""
    if evaluation is None or not evaluation.preferences:
        return []
    kinds = evaluation.heldout_kinds or [evaluation.preferences[-1].kind]
    return [p for p in evaluation.preferences if p.kind in kinds]


def _estimate(value: Estimate) -> show.Inert:
    return show.Inert(f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]")


def _share(value: Estimate) -> show.Inert:
    return show.Inert(f"{100 * value.value:.1f}% [{100 * value.low:.1f}, {100 * value.high:.1f}]")


def _nats(value: float, digits: int) -> show.Inert:
    return show.Inert(f"{value:.{digits}f}")
