"""What a plan says of documents that are too few or too large to be parted: one of them is held out whole, or trained
on whole, and rules that count its words may drop it.

Only of files on this machine, by their sizes and the beginnings of four: what they hold is for their reader to say.
"""

from collections.abc import Sequence

from fmtrain.artifacts import estimate
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError
from fmtrain.schema.formats import form
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Local, is_heldout

_LARGE = 0.1  # share of all text from which a single document is worth a word
_LOOKED_AT = 4  # files
_NAMED = 3  # documents that a plan names
_MB = 1_000_000


def check(data: Local, sources: Sequence[Source], key: str) -> None:
    """ConfigError where every document is a text file, and all are held out or none is: a corpus has both sides.

    A text file's group is its name, so that this is known before anything is read.
    """
    if not data.heldout_modulus or data.split != "none" or not sources:
        return
    if not all(_is_text(source) for source in sources):
        return
    held = sum(is_heldout(source.name, data.heldout_modulus) for source in sources)
    if 0 < held < len(sources):
        return
    one, which = len(sources) == 1, "held out" if held else "trained on"
    these = f"one document, {sources[0].name}: it" if one else f"{len(sources)} documents, a file each: all"
    raise ConfigError(
        f"{key}.files are {these} would be {which}, and a corpus needs both sides. Cut {'it' if one else 'them'} into "
        f"more documents with {key}.split=paragraphs (lines:N, chars:N, regex:PATTERN), or hold nothing out and "
        f"evaluate nothing: {key}.heldout_modulus=0"
    )


def told(data: Local, chosen: Filter, sources: Sequence[Source], keys: dict[str, str]) -> list[str]:
    """What there is to say of large documents, and of few."""
    if data.split != "none" or any(is_url(source.path) for source in sources):
        return []
    texts = [source for source in sources if _is_text(source)]
    split = f"{keys['data']}.split=paragraphs"
    said = _of_texts(data, chosen, sources, texts, keys)
    more = f"; {len(said) - _NAMED} more such" if len(said) > _NAMED else ""
    if said:
        cut = "makes many documents of it" if len(said) == 1 else "makes many documents of each"
        return [f"{'; '.join(said[:_NAMED])}{more}. {split} {cut}"]
    if data.heldout_modulus and len(sources) <= _LOOKED_AT and len(texts) < len(sources):
        rows = [source for source in sources if not _is_text(source)]
        lines = all(form(source.name, source.path)[0] in estimate.LINES for source in rows)
        found = estimate.records(rows, looked_at=_LOOKED_AT) if lines else None
        if found is not None and found + len(texts) < data.heldout_modulus:
            return [
                f"some {found + len(texts)} documents, of which one in {data.heldout_modulus} is held out: maybe none; "
                f"{split} makes more of them"
            ]
    return []


def _of_texts(
    data: Local, chosen: Filter, sources: Sequence[Source], texts: Sequence[Source], keys: dict[str, str]
) -> list[str]:
    """Text files of which a word is worth saying, the largest first."""
    sizes = {source.name: _size(source) for source in sorted(texts, key=lambda s: -s.size)[: 10 * _NAMED]}
    others = [source for source in sources if source.name not in sizes]
    whole = sum(sizes.values()) + (estimate.unpacked(others, looked_at=_LOOKED_AT) if sizes else 0)
    said = []
    for name, size in sizes.items():
        share, faults = size / max(whole, 1), _faults(data, chosen, size, keys)
        if len(sources) > 1 and share >= _LARGE:
            side = "held out" if is_heldout(name, data.heldout_modulus) else "trained on"
            said.append(f"one document, {name}, is {share:.0%} of the text and {faults or f'{side} whole'}")
        elif faults:
            said.append(f"one document, {name}, {faults}")
    return said


def _faults(data: Local, chosen: Filter, size: float, keys: dict[str, str]) -> str:
    """Why it is lost on its way into the corpus; "" where nothing tells."""
    if size > data.max_line_mb * _MB:
        return f"is not read, being over {keys['data']}.max_line_mb={data.max_line_mb}"
    for name, rule in chosen.applied():
        if over := rule.too_large(int(size)):
            return f"would be dropped by {keys['filter']}.{name}.{over}"
    return ""


def _size(source: Source) -> float:
    """Bytes of a text file's content; only of a packed one anything is read."""
    return estimate.content(source).bytes if form(source.name, source.path)[1] else source.size


def _is_text(source: Source) -> bool:
    return form(source.name, source.path)[0] in estimate.TEXTS
