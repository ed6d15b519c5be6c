"""How a text is cut into documents: what `data.split` may say, for whoever plans and for the reader that cuts."""

import re
from typing import NamedTuple

from fmtrain.errors import ConfigError
from fmtrain.schema.limits import Limits

PARAGRAPHS = 2000  # characters, some 350 words of English: what Gopher's rules ask for seven times
KINDS = (".txt", ".md", ".jsonl", ".json", ".ndjson", ".parquet")  # files whose documents are cut; a page is one
LIMITS = Limits(
    pattern=r"none|paragraphs|(paragraphs|lines|chars):[1-9][0-9]{0,6}|(?s:regex:.+)",
    form="none, paragraphs, paragraphs:N, lines:N, chars:N or regex:PATTERN",
    such="paragraphs",
)


class Split(NamedTuple):
    """`how` is paragraphs, lines, chars or regex; `number` what stands behind the first three."""

    how: str
    number: int = 0
    pattern: str = ""


def parse(given: str) -> Split | None:
    """What a setting within LIMITS says; None for `none`."""
    how, _, rest = given.partition(":")
    if how == "regex":
        return Split(how, pattern=rest)
    return None if how == "none" else Split(how, int(rest or PARAGRAPHS))


def check(given: str, key: str) -> None:
    """ConfigError for a pattern that is none, or that cuts everywhere."""
    split = parse(given)
    if split is None or split.how != "regex":
        return
    try:
        found = re.compile(split.pattern).search("")
    except (re.error, OverflowError, RecursionError) as e:
        raise ConfigError(
            f"{key}={given}: not a regular expression ({e}); e.g. {key}='regex:^CHAPTER ', quoted twice in a shell: "
            f"\"{key}='regex:^CHAPTER '\""
        ) from None
    if found:
        raise ConfigError(
            f"{key}={given}: the pattern matches where nothing stands, and every letter would be a document; say what "
            f"a document begins with, e.g. {key}='regex:^CHAPTER '"
        )
