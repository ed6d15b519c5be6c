"""The forms of a fine-tuning row, told apart by their keys. Shared by the planner and the corpus wing.

Three are ours. A plug-in adds others, each with a function that makes a row of ours of one of its.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fmtrain.schema.sources import Rows

OURS = ("messages", "prompt_completion", "preference")
_TOLD = (
    'messages: {"messages": [{"role": "user", "content": ..}, {"role": "assistant", "content": ..}]}; '
    'prompt and completion: {"prompt": .., "completion": ..} (other keys: data.prompt_key, data.completion_key); '
    'preference: {"prompt": .., "chosen": .., "rejected": ..}'
)
_KEYS, _LETTERS = 12, 40  # of a row that are shown


@dataclass(frozen=True)
class Foreign:
    """A form of a plug-in's."""

    keys: tuple[str, ...]  # that each of its rows has
    form: str  # of ours, which `convert` makes of it
    convert: Callable[[dict[str, Any]], Any]


FOREIGN: dict[str, Foreign] = {}  # name -> form


def forms_told() -> str:
    """What rows are expected, for messages."""
    return "; ".join([_TOLD, *(f"{name}: {', '.join(FOREIGN[name].keys)}" for name in sorted(FOREIGN))])


def form_of(row: Any, data: Rows) -> str | None:
    """Which form a decoded JSON line has, or None. Ours come first: a plug-in changes no row that fits them."""
    if not isinstance(row, dict):
        return None
    own = _own_form(row, data)
    return own or next((name for name in sorted(FOREIGN) if all(key in row for key in FOREIGN[name].keys)), None)


def made_ours(row: Any, data: Rows) -> tuple[Any, Rows, str | None]:
    """A row with a form of ours, what its keys are called, and its form; ValueError says why a plug-in's gives none."""
    form = form_of(row, data)
    if form not in FOREIGN:
        return row, data, form
    try:
        made = FOREIGN[form].convert(row)
    except (LookupError, TypeError, AttributeError) as e:  # of a row that is not as its keys promise
        raise ValueError(f"it has the keys of {form} and is none: {type(e).__name__}: {e}") from e
    data = replace(data, prompt_key="prompt", completion_key="completion")
    if not isinstance(made, dict) or _own_form(made, data) != FOREIGN[form].form:
        raise ValueError(f"{form} makes no {FOREIGN[form].form} of it")
    return made, data, FOREIGN[form].form


def _own_form(row: dict[str, Any], data: Rows) -> str | None:
    if isinstance(row.get("messages"), list):
        return "messages"
    if "chosen" in row and "rejected" in row:
        return "preference"
    if isinstance(row.get(data.prompt_key), (str, list)) and isinstance(row.get(data.completion_key), (str, list)):
        return "prompt_completion"
    return None


def keys_of(row: dict[str, Any]) -> str:
    """The keys of a row for a message: the first few, each cut."""
    return ", ".join(key[:_LETTERS] for key in sorted(row)[:_KEYS]) or "none"


def no_form(row: Any) -> str:
    """Why a row has no form."""
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, not an object"
    return f"fits no form; its keys are {keys_of(row)}"
