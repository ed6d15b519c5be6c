"""The three forms of a fine-tuning row, told apart by their keys. Shared by the planner and the corpus wing."""

from typing import Any, Literal

from fmtrain.schema.sources import Rows

Form = Literal["messages", "prompt_completion", "preference"]


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
