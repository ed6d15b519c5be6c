"""The three forms of a fine-tuning row, told apart by their keys. Shared by the planner and the corpus wing."""

from typing import Any, Literal

from fmtrain.schema.sources import Rows

Form = Literal["messages", "prompt_completion", "preference"]
FORMS = (
    'messages: {"messages": [{"role": "user", "content": ..}, {"role": "assistant", "content": ..}]}; '
    'prompt and completion: {"prompt": .., "completion": ..} (other keys: data.prompt_key, data.completion_key); '
    'preference: {"prompt": .., "chosen": .., "rejected": ..}'
)
_KEYS, _LETTERS = 12, 40  # of a row that are shown


def form_of(row: Any, data: Rows) -> Form | None:
    """Which form a decoded JSON line has, or None."""
    if not isinstance(row, dict):
        return None
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
