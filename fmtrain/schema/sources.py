"""Config of where documents and rows come from."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fmtrain.schema import splits
from fmtrain.schema.fields import MISSING, items, later, outside, place
from fmtrain.schema.limits import Count, Limits, Share
from fmtrain.schema.options import options


@dataclass
class Data:
    """A source of documents or rows. A document is held out when sha256(its group) mod heldout_modulus == 0; where the
    modulus is 0, none is."""

    usual_filter: ClassVar[str] = "none"  # what filter=auto is for it

    name: str = MISSING
    heldout_modulus: Count = 20  # 0: nothing is held out, and an evaluation is refused
    max_bad_fraction: Share = 0.001  # of the records; more that cannot be read stops the stage


@dataclass
class Stdlib(Data):
    """The Python standard library of the running interpreter; a document a file, grouped by top-level module."""

    usual_filter = "code"

    name: str = "stdlib"
    modules: list[str] = items()  # only these top-level modules; empty: all
    exclude: list[str] = items("test", "tests", "idle_test", "site-packages", "__pycache__")
    max_bad_fraction: Share = 0.01  # a few files of another encoding among some 700


@dataclass
class Keys(Data):
    """Which key of a row holds what; nested keys with dots. Rows without an optional one are fine."""

    text_key: str = "text"
    id_key: str = "id"
    url_key: str = "url"
    date_key: str = "date"  # ISO 8601 or seconds since 1970
    license_key: str = "license"
    content_type_key: str = "content_type"  # text/html, text/markdown ...: what filter.html.when=auto goes by
    source_key: str = "source"  # a row's source; without one the name of its file
    max_line_mb: Annotated[int, Limits(least=1, greatest=100000)] = 64  # a longer line is no record


@dataclass
class Local(Keys):
    """Files by path, glob or URL (s3://, gs://, https://): JSON lines, Parquet, WARC, text; also .gz and .zst."""

    usual_filter = "gopher"

    name: str = "local"
    files: list[str] = place([])
    # what of a text, a line of JSON or a row of Parquet is a document: none is all of it, paragraphs[:N] are joined up
    # to N characters (2,000), lines:N, chars:N at white space, regex:PATTERN where a line matches
    split: Annotated[str, splits.LIMITS] = later("none")


@dataclass
class Hub(Keys):
    """A Hugging Face dataset, streamed; `path` is its name or a folder on this machine."""

    usual_filter = "gopher"

    name: str = "hub"
    path: str = place(MISSING)  # its name and content are those of its source
    config: str | None = None
    split: str = "train"
    revision: str | None = outside(None)  # None: the newest; the commit belongs to the identity


@dataclass
class Rows(Data):
    """Rows to fine-tune on, in JSON lines or Parquet, by path or from a data set: `messages`, prompt and completion, or
    prompt, chosen and rejected."""

    name: str = "rows"
    files: list[str] = place([])
    path: str | None = place(None)  # or a data set: OWNER/NAME[@REVISION] of the hub, or its folder here
    config: str | None = outside(None)  # of the data set; None: the only one, or its default
    split: str = outside("train")  # of the data set
    revision: str | None = outside(None)  # of the data set; None: the newest
    prompt_key: str = "prompt"
    completion_key: str = "completion"
    # which forms the rows have: messages, prompt_completion, preference, a plug-in's; empty: looked up in each file
    forms: list[str] = outside([])
    max_line_mb: Annotated[int, Limits(least=1, greatest=1000)] = 16  # a longer line is no row
    max_bad_fraction: Share = 0.1  # of the rows; more that are unusable stops the stage


options(Data, stdlib=Stdlib, local=Local, hub=Hub, rows=Rows)


def is_heldout(group: str, modulus: int) -> bool:
    """Whether a document is set apart for evaluation: by its group alone, so before any filter has looked at it.

    A modulus of 0 sets none apart.
    """
    return modulus > 0 and int.from_bytes(hashlib.sha256(group.encode()).digest(), "big") % modulus == 0
