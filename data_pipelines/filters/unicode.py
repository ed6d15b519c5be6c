"""Mojibake and odd characters mended by ftfy (Speer 2019). Drops nothing; counts the documents it mended.

The choices are datatrove's FTFYFormatter's: repair what is broken, and leave typography, ligatures, full-width
characters and line ends as their authors wrote them. ftfy works a line at a time; a line of ASCII without `&` and
without control characters has nothing to mend and is passed over here.
"""

import re

import ftfy

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.schema import rules

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_ASCII_FAULT = re.compile(r"[&\x00-\x08\x0b\x0e-\x1f\x7f]")


class Unicode:
    """Mends the text in place and counts the document as unicode.mended."""

    def __init__(self, config: rules.Unicode) -> None:
        self.config = ftfy.TextFixerConfig(
            unescape_html="auto" if config.fix_entities else False,  # auto: not in a text that holds a literal <
            fix_latin_ligatures=False,
            fix_character_width=False,
            fix_line_breaks=False,
            uncurl_quotes=config.uncurl_quotes,
            normalization=None if config.normalization == "none" else config.normalization,
            explain=False,
        )

    def __call__(self, doc: Document) -> Drop | None:
        if doc.text.isascii() and not _ASCII_FAULT.search(doc.text):
            return None
        mended = self._mended(doc.text)
        if mended != doc.text:
            doc.count("unicode.mended")
            doc.text = mended
        return None

    def _mended(self, text: str) -> str:
        """`ftfy.fix_text`, which sees only the lines that may need it."""
        config, lines = self.config, _LINES.findall(text)
        for i, line in enumerate(lines):
            if config.unescape_html and "<" in line:  # from here on it may be HTML on purpose: ftfy's own rule
                config = config._replace(unescape_html=False)
            if not line.isascii() or _ASCII_FAULT.search(line):
                lines[i] = ftfy.fix_text(line, config)
        return "".join(lines)
