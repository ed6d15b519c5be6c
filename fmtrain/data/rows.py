"""Reads an `examples` artifact: SFT rows and preference rows, tokenized, those too long left out and counted.

Training, the reference stage and evaluation select rows by the same rule here, so that they mean the same rows.
"""

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.storage import read_jsonl
from fmtrain.data.chat import Chat, Encoded, encode_chats, pair
from fmtrain.errors import InputError, StoreError

E = TypeVar("E")


@dataclass(frozen=True)
class SftRow:
    """One chat as tokens."""

    id: str
    encoded: Encoded


@dataclass(frozen=True)
class PreferenceRow:
    """One prompt with two responses as tokens; `kind` says how the rejected one came about."""

    id: str
    kind: str
    chosen: Encoded
    rejected: Encoded


@dataclass(frozen=True)
class Selected(Generic[E]):
    """Rows by number, in the file's order, and what became of the others.

    counts: rows (kept), too_long, refused (by the chat template), not_needed (beyond max_rows, not tokenized).
    """

    rows: list[E]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> E:
        return self.rows[i]


def sft_rows(
    path: Path, tokenizer: PreTrainedTokenizerBase, sequence_length: int, max_rows: int | None = None
) -> Selected[SftRow]:
    """The usable rows of an SFT file; a row is too long when its chat has more than `sequence_length` tokens."""

    def made(row: dict[str, Any], encoded: list[Encoded]) -> SftRow:
        return SftRow(row["id"], encoded[0])

    return _select(path, tokenizer, lambda row: [Chat(row["messages"])], made, sequence_length, max_rows)


def preference_rows(
    path: Path, tokenizer: PreTrainedTokenizerBase, sequence_length: int, max_rows: int | None = None
) -> Selected[PreferenceRow]:
    """The usable rows of a preference file; both responses with their prompt must fit `sequence_length` tokens."""

    def chats(row: dict[str, Any]) -> list[Chat]:
        return [pair(row["prompt"], row["chosen"]), pair(row["prompt"], row["rejected"])]

    def made(row: dict[str, Any], encoded: list[Encoded]) -> PreferenceRow:
        return PreferenceRow(row["id"], row["kind"], *encoded)

    return _select(path, tokenizer, chats, made, sequence_length, max_rows)


def require(selected: Selected[Any], path: Path, sequence_length: int) -> None:
    """InputError with the counts where no row is usable."""
    if not selected.rows:
        raise InputError(
            f"{path} gives no usable row: {selected.counts['too_long']} longer than sequence_length={sequence_length}, "
            f"{selected.counts['refused']} refused by the chat template (the log names the first), of "
            f"{sum(selected.counts.values())}; give a larger sequence_length or other rows"
        )


def check_refused(selected: Selected[Any], most: float, key: str) -> None:
    """InputError where the chat template refuses more than the share `most` of the rows; `key` is its setting.

    Rows that are too long, or not needed, are left out by design and never counted against it.
    """
    refused = selected.counts["refused"]
    asked = refused + selected.counts["rows"] + selected.counts["too_long"]
    if refused > most * asked:
        raise InputError(
            f"the chat template refuses {refused} of {asked} rows ({refused / asked:.1%}; the log names the first), "
            f"more than {key}={most} allows. Mend the rows or the template, or say that so many may be left out: "
            f"{key}={math.ceil(1000 * refused / asked) / 1000}"
        )


def told(counts: dict[str, int], length: int, setting: str = "sequence_length") -> dict[str, int]:
    """The counts of `Selected` in words, for the one line that says what became of all rows."""
    return {
        f"longer than {setting}={length}": counts["too_long"],
        "refused by the chat template (the log names the first)": counts["refused"],
        "not needed for max_rows": counts["not_needed"],
        "used": counts["rows"],
    }


def _select(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    chats: Callable[[dict[str, Any]], list[Chat]],
    made: Callable[[dict[str, Any], list[Encoded]], E],
    sequence_length: int,
    max_rows: int | None,
) -> Selected[E]:
    """The first `max_rows` usable rows in the order of sha256(id): a sample independent of the file's order."""
    raw = list(read_jsonl(path))
    order = sorted(range(len(raw)), key=lambda i: (hashlib.sha256(str(raw[i]["id"]).encode()).digest(), i))
    counts = {"rows": 0, "too_long": 0, "refused": 0, "not_needed": 0}
    kept: dict[int, E] = {}
    asked = {i: _chats_of(raw[i], chats, path) for i in order}
    encoded = encode_chats(tokenizer, (chat for i in order for chat in asked[i]))
    for i in order:
        if max_rows is not None and len(kept) >= max_rows:
            counts["not_needed"] += 1
            continue
        found = [next(encoded) for _ in asked[i]]
        good = [e for e in found if isinstance(e, Encoded)]
        if len(good) < len(found):
            why = next(e for e in found if isinstance(e, InputError))
            if not counts["refused"]:
                print(f"{path.name}: row {raw[i]['id']!r} left out: {why}", file=sys.stderr, flush=True)
            counts["refused"] += 1
        elif max(len(e.ids) for e in good) > sequence_length:
            counts["too_long"] += 1
        else:
            kept[i] = made(raw[i], good)
    counts["rows"] = len(kept)
    return Selected([kept[i] for i in sorted(kept)], counts)


def _chats_of(row: dict[str, Any], chats: Callable[[dict[str, Any]], list[Chat]], path: Path) -> list[Chat]:
    try:
        return chats(row)
    except KeyError as e:
        raise StoreError(f"{path}: row {row.get('id')!r} lacks {e}; make the examples again") from None
