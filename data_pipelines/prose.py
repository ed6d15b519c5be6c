"""What a reader hears of a document: its paragraphs without code, tables, addresses and the marks of Markdown and RST.

Rules that count words and lines hold marks against a text, and documentation is full of them. They may judge this
instead (`view=prose`); the text itself stays as it is. A paragraph or an item of a list becomes a line, whatever its
line breaks. No parser of Markdown reads reStructuredText or the other way round, and neither reads what is half of
each, as much documentation is; what is needed is only which lines are prose, so lines are looked at as they come.

Time is linear in the length of the text.
"""

import re
from collections.abc import Iterator

_HEAD = re.compile(r"(?:[A-Za-z][\w -]{0,40}:[ \t][^\n]*\n(?:[ \t]+\S[^\n]*\n)*){2,}\s*\n")  # of a PEP, a message
_FENCE = re.compile(r"\s{0,12}(`{3,}|~{3,})")
_RULE = re.compile(r"\s*([=\-~^\"'`*+#.:_])\1{2,}\s*$")  # under a title, between parts
_BORDER = re.compile(r"\s*(?:={2,}(?:\s+={2,})+|\+[-=]+\+[-=+]*)\s*$")  # of RST's tables
_ROW = re.compile(r"\s*\|.*\|\s*$|\s*:?-{3,}:?\s*\|[\s:|-]*$|[^|\n]*\|[^|\n]*\|")  # of Markdown's and of grids
_DIRECTIVE = re.compile(r"(\s*)\.\.\s+(?:\|[^|]*\|\s+)?([\w:.-]+)::(.*)")
_BODIES = """
admonition attention caution danger deprecated error hint important note seealso sidebar tip topic versionadded
versionchanged warning
"""  # directives that hold prose
_TOLD = frozenset(_BODIES.split())
_REMARK = re.compile(r"(\s*)\.\.(?:\s+(?!\[)|\s*$)")  # a comment or a target of RST; footnotes are told
_TARGET = re.compile(r"\s*(?:\[[^\]]{1,100}\]:\s*\S|__\s+\S|:[\w -]{1,40}:(?:\s|$))")  # of Markdown; a field of RST
_ITEM = re.compile(r"\s*(?:[-*+•>]|\(?(?:\d{1,3}|[a-zA-Z#])[.)]|\.\. \[[^\]]*\])\s+")
_TITLE = re.compile(r"\s{0,3}#{1,6}\s")
_INLINE = [  # a mark without which there is none, what is found, what stays of it
    ("![", re.compile(r"!\[[^\]\n]{0,300}\]\([^()\s]{0,2000}[^()\n]{0,200}\)"), ""),  # a picture
    ("](", re.compile(r"\[([^\]\n]{0,300})\]\([^()\n]{0,2000}(?:\([^()\n]{0,200}\))?[^()\n]{0,200}\)"), r"\1"),
    ("][", re.compile(r"\[([^\]\n]{0,300})\]\[[^\]\n]{0,100}\]"), r"\1"),
    ("`", re.compile(r"`([^`<\n]{1,300}?)\s{0,9}<[^>`\n]{1,2000}>`__?"), r"\1"),
    ("[", re.compile(r"\[(?:\d+|[#^*][\w-]*)\]_?"), ""),  # marks of footnotes
    ("://", re.compile(r"<?\b(?:https?|ftp|file|git|ssh)://[^\s<>\"]*[^\s<>\".,;:!?)\]']/?>?"), ""),
    ("<", re.compile(r"</?[a-zA-Z][^<>\n]{0,500}>"), ""),
    (":`", re.compile(r":[a-zA-Z][\w:+.-]{1,30}:(?=`)"), ""),  # a role
]
_CODE = re.compile(r"(`{1,2})([^`]{1,300})\1_{0,2}")
_NO_WORD = re.compile(r"[^\w\s.]+|\.(?!\w)")
_MARKS = re.compile(r"(?<![\w*])[*_]{1,3}(?=\w)|(?<=[\w.,;:!?)])[*_]{1,3}(?![\w*])|\\(?=\W)")
_WRAPPED = 40  # characters of a line: a shorter one was not broken off, and is the last of its paragraph
_LONGEST = 300  # lines of a table: a border that none follows is no table


def prose(text: str) -> str:
    """The paragraphs of a text, one a line."""
    lines = []
    for paragraph in _paragraphs(text):
        line = _inline(" ".join(paragraph.split()))
        if line:
            lines.append(line)
    return "\n".join(lines)


def _inline(line: str) -> str:
    """A line without addresses and marks. Code within a sentence is one of its words."""
    for mark, pattern, instead in _INLINE:
        if mark in line:
            line = pattern.sub(instead, line)
    if "`" in line:
        line = _CODE.sub(lambda match: "".join(_NO_WORD.sub("", match[2]).split()), line)
    if "*" in line or "_" in line or "\\" in line:
        line = _MARKS.sub("", line)
    return " ".join(line.split())


def _paragraphs(text: str) -> Iterator[str]:
    """Each paragraph, item and title, lines joined; blocks that are no prose left out."""
    held: list[str] = []
    width = 0  # of the line before
    for line in _told(_body(text).split("\n")):
        if width < _WRAPPED or not line.strip() or _ITEM.match(line) or _TITLE.match(line):
            if held:
                yield " ".join(held)
            held = []
        if line.strip():
            item = _ITEM.match(line)
            held.append(line[item.end() :] if item else line.lstrip(" #\t"))
        width = len(line.rstrip())
    if held:
        yield " ".join(held)


def _body(text: str) -> str:
    """The text without comments and what stands before it: front matter, the head of a message or a PEP."""
    text = _without_comments(text.replace("\r\n", "\n"))
    if text.startswith("---\n") and 0 < (end := text.find("\n---\n", 3)) < 10_000:
        return text[end + 5 :]
    head = _HEAD.match(text)
    return text[head.end() :] if head else text


def _without_comments(text: str) -> str:
    kept, at = list[str](), 0
    while (begin := text.find("<!--", at)) >= 0 and (end := text.find("-->", begin)) >= 0:
        kept.append(text[at:begin])
        at = end + 3
    return "".join([*kept, text[at:]])


def _told(lines: list[str]) -> Iterator[str]:
    """The lines that are prose; an empty one in the place of each block that is none."""
    at, blank, literal, known, depth = 0, True, False, 0, 0
    endless = set[str]()  # fences that never end: stray marks
    while at < len(lines):
        line = lines[at]
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        skipped, told = 0, ""
        if bare and blank and (literal or (indent >= 4 and (at >= known or indent > depth))) and indent:
            end = _indented(lines, at, indent)
            if literal or not _reads(lines[at:end]):
                skipped = end - at
            else:
                known, depth = end, indent
        if bare and not skipped and (not bare[0].isalnum() or "|" in bare):
            skipped, told = _block(lines, at, indent, endless)
        if skipped:
            yield ""
            if told:
                yield told
            at, blank, literal = at + skipped, not told, False
            continue
        literal = bare.endswith("::") if bare else literal
        blank = not bare
        yield line
        at += 1


def _block(lines: list[str], at: int, indent: int, endless: set[str]) -> tuple[int, str]:
    """How many lines to leave out, 0 where none, and what is told in their place."""
    line = lines[at]
    if (fence := _FENCE.match(line)) and fence[1] not in endless:
        if end := _fenced(lines, at, fence[1]):
            return end - at, ""
        endless.add(fence[1])
    if _BORDER.match(line):
        return _table(lines, at), ""
    if found := _DIRECTIVE.match(line):
        if found[2].lower() in _TOLD:
            return 1, found[3].strip()
        return _indented(lines, at + 1, indent + 1) - at, ""
    if _REMARK.match(line):
        return _indented(lines, at + 1, indent + 1) - at, ""
    return int(bool(_RULE.match(line) or _ROW.match(line) or _TARGET.match(line))), ""


def _fenced(lines: list[str], at: int, mark: str) -> int:
    """Where the lines begin that follow fenced code; 0 where it never ends."""
    for n in range(at + 1, len(lines)):
        bare = lines[n].strip()
        if bare.startswith(mark) and not bare.strip(mark[0]):
            return n + 1
    return 0


def _table(lines: list[str], at: int) -> int:
    """How many lines a table of RST has: to the first border that an empty line follows, else to the last."""
    last = at
    for n in range(at + 1, min(len(lines), at + _LONGEST)):
        if _BORDER.match(lines[n]):
            last = n
            if n + 1 == len(lines) or not lines[n + 1].strip():
                break
    return last + 1 - at


def _indented(lines: list[str], at: int, indent: int) -> int:
    """Where the lines end that are indented by so much, empty ones among them."""
    end = at
    for n in range(at, len(lines)):
        if lines[n].strip():
            if len(lines[n]) - len(lines[n].lstrip()) < indent:
                break
            end = n + 1
    return end


def _reads(block: list[str]) -> bool:
    """Whether an indented block is prose: a list's paragraph, or a text that is indented as a whole."""
    lines = [words for line in block if (words := line.split())]
    return 2 * sum(map(_is_sentence, lines)) >= len(lines)


def _is_sentence(words: list[str]) -> bool:
    """A part of one: five words or more, nearly all of them letters."""
    return len(words) > 4 and sum(word.strip("\"'(),.;:!?`*").isalpha() for word in words) > 0.7 * len(words)
