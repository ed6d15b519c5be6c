"""Is a document HTML, a page or a piece of one, or text: Markdown, reStructuredText, XML, a template, source code?

Text may hold markup too, and a page may be cut anywhere, so neither a tag nor its absence at the beginning decides.
First comes what a document says of itself where it begins. Else HTML is what has tags throughout, and beside them few
signs of another notation: headings, lists, tables and links as Markdown writes them, directives, lines that end as code
does, names of elements that HTML has not. What stands in code, fenced or as an element, counts for neither side.
How often it is wrong, on what the thresholds were chosen on and on what they were not: benchmarks/html_kind.py.

Time is linear in the length of the text, whatever it holds.
"""

import re
from collections import Counter

import orjson

_PER_CHARACTERS = 350  # more of them a tag, on the average, and it is text; in part A 285 of a page at most
_MARKS = 0.4  # share of signs of another notation among signs and tags; in part A .35 in a page at most
_TEXT_TYPES = ("text/", "application/xml", "application/json", "application/javascript", "application/ecmascript")
_HTML_TYPES = ("text/html", "application/xhtml+xml")

_HTML = """
a abbr acronym address applet area article aside audio b base bdi bdo big blockquote body br button canvas caption
center cite code col colgroup dd del details dfn dialog dir div dl dt em embed fieldset figcaption figure font footer
form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label legend li link main
map mark menu meta nav noframes noscript object ol optgroup option p param picture pre q s samp script section select
small source span strike strong style sub summary sup table tbody td template textarea tfoot th thead time title tr
track tt u ul var video wbr
"""
_WITHIN_PAGES = """
svg path rect g circle line polygon polyline text use symbol defs ellipse tspan lineargradient clippath stop math mi
mn mo mtext mspace ms mrow mfrac msqrt mroot mstyle merror mpadded mphantom mfenced menclose msub msup msubsup munder
mover munderover mmultiscripts mtable mtr mtd semantics annotation
"""  # drawings and formulas
_NAMES = frozenset((_HTML + _WITHIN_PAGES).split())
_TAG = re.compile(
    r"</?([a-z][\w:.\-]*)"
    r"(?:\s+[a-z_:@*#\[(.][\w:.\-\[\])]*(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))?)*\s*/?>",  # attributes
    re.IGNORECASE,
)
_TAG_BEGINS = re.compile(r"</?[a-z][\w:.\-]*\s", re.IGNORECASE)
_OPAQUE = re.compile(r"<(script|style|svg|pre|code|textarea|math|!--)(?=[\s>\w-])", re.IGNORECASE)
_ENDS = {
    name: re.compile("-->" if name == "!--" else rf"</{name}\b[^>]*>?", re.IGNORECASE)
    for name in ("script", "style", "svg", "pre", "code", "textarea", "math", "!--")
}
_A_TAG = "<b>"
_QUOTED = frozenset(("pre", "code", "textarea"))  # elements that a reader sees: their length counts
_TO_THE_END = frozenset(("script", "style", "pre", "!--"))  # without an end, all that follows is inside
_LED = re.compile(r"</(script|style|pre)\s*>", re.IGNORECASE)
_LEADS = re.compile(r"<(?:script|style|pre)[\s>]", re.IGNORECASE)
_FENCE = re.compile(r" {0,3}(```|~~~)")
_TICKS = re.compile(r"(`{1,3})[^`\n]{1,300}\1")
_FIELD = re.compile(r"\{\{[-#/>{]?\s*\w")
_TAGS_A_FIELD = 20  # fewer: a template, for a page whose fields a script fills in has few of them
_TEMPLATE = re.compile(r"\{%[-+]?\s*\w|<\?(?:=|(?!xml)\w)|<%")
_SIGN = re.compile(
    r"^ {0,3}(?:#{1,6} \S|\|.*\|\s*$|\[[^\]\n]{1,100}\]:|\.\. |[=~^*-]{4,}\s*$|[-*+] |\d+\. |> )"  # Markdown, RST
    r"|\]\(|\*\*\w|::\s*$|^\s*(?://|#|\*)",  # the last are comments of code
    re.MULTILINE,
)
# Hardly anywhere but in Markdown: headings and links. They count _STRONGER times more.
_STRONG, _STRONGER = re.compile(r"^#{1,6} \w|\[[^\]\n]{1,200}\]\((?:https?:|[#./\w])", re.MULTILINE), 2
# A line of code without a tag in it, and tags in strings of code, beside a quote or with one that is escaped.
_CODE = re.compile(
    r"^[^<\n]*(?:[;{}(\[]|\)[:,])\s*$|^\s*(?:def|class|import|return|elif|assert|@\w+|self\.\w+|[)\]}])(?![\w<])"
    r"|=\\[\"'&]|<\\/|[\"'`]</?[a-zA-Z]",
    re.MULTILINE,
)
_SOURCE_BEGINS = re.compile(  # Python; a field of RST; a title over or between lines of marks
    r"(?:\"{3}|'{3}|import \w|from [\w.]+ import\b|:[A-Z][\w-]*: \S)|(?:([=*#~-])\1{2,}\n)?[^<\n]+\n([=*#~^-])\2{2,}\s"
)
_CODE_BEGINS = re.compile(  # where the end is one of code too: a piece of a page may begin inside a script
    r"//|/\*|[\"']use strict|[!(+]*(?:async )?(?:function|import|export|const|let|var|class|package|using)\b"
    r"|[\w.]+\([\"'{(\[]|[!(+]+\w*\)?=>|[A-Za-z_]\w* = "
)
_SPACE, _BREAK = re.compile(r"[ \t\r]+"), re.compile(r" ?\n[\n ]*")
_BLANK = re.compile(r"[\s\ufeff]*")
_FIRST = re.compile(r"<(?:!doctype\s+)?([a-z][\w:.\-]*)", re.IGNORECASE)
# The head of a message or of a PEP: lines NAME: VALUE, which may go on indented. Style sheets end theirs otherwise.
_HEAD = re.compile(r"(?:[A-Za-z][\w-]*:[ \t][^\n]*[^\n;,{]\n(?:[ \t]+\S[^\n]*\n)*){2}")
_TEXT_BEGINS = ("#!", "# ", "## ", "<?php", "{%", "{#", "---\n", "---\r\n", "%YAML", ".. ", ".TH ", '.\\"')


def says_html(content_type: str) -> bool | None:
    """Whether a content type says HTML, or that it is text; None where it says neither."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _HTML_TYPES:
        return True
    return False if kind.startswith(_TEXT_TYPES) or kind.endswith(("+xml", "+json")) else None


def is_html(text: str) -> bool:
    """Whether a text is a page of HTML, or a piece of one that holds markup."""
    if "<" not in text:
        return False
    if (said := _begins(text)) is False:
        return False
    bare, quoted = _without_code(text)
    bare = _BREAK.sub("\n", _SPACE.sub(" ", bare))
    tags, others = _count(bare)
    if _is_template(bare, tags, bool(said)):
        return False
    if said:
        return True
    if not tags or tags * _PER_CHARACTERS < len(bare) - _loose(bare) + quoted:
        return False
    signs = _signs(bare) + others
    return signs <= _MARKS * (signs + tags)


def _begins(text: str) -> bool | None:
    """What the beginning says: True HTML unless it is a template, False text, None nothing."""
    start = text[:200].lstrip("\ufeff \t\r\n")
    if start.startswith(_TEXT_BEGINS) or _SOURCE_BEGINS.match(start) or _HEAD.match(text):
        return False
    end = text[-200:].rstrip()[-6:]
    if _CODE_BEGINS.match(start) and end.endswith((";", "}", ")", "*/", '"""')) and not _LED.search(text):
        return False
    if start[:1] in ("{", "[") and end[-1:] in ("}", "]") and _is_json(text):
        return False
    xml, first = _first(text)
    if first in ("html", "netscape-bookmark-file-1"):
        return True
    root = first not in _NAMES or first == "svg"  # of XML, where it ends the text too
    if xml or (first and root and text[-200:].rstrip().lower().endswith(f"</{first}>")):
        return False
    return None


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _first(text: str) -> tuple[bool, str]:
    """Whether an XML declaration stands before, and the name of the document type or element that comes first."""
    at, xml = 0, False
    while True:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        begin, end = ("<?", "?>") if text.startswith("<?", at) else ("<!--", "-->")
        if not text.startswith(begin, at):
            break
        xml |= text.startswith("<?xml", at)
        if (found := text.find(end, at)) < 0:
            return xml, ""
        at = found + len(end)
    match = _FIRST.match(text, at)
    return xml, match[1].lower() if match else ""


def _count(bare: str) -> tuple[int, int]:
    """HTML's tags, and others without a hyphen: a page's own elements have one."""
    names = Counter(match[1].lower() for match in _TAG.finditer(bare))
    tags = sum(n for name, n in names.items() if name in _NAMES)
    return tags, sum(n for name, n in names.items() if name not in _NAMES and "-" not in name)


def _loose(bare: str) -> int:
    """The characters of a tag that the beginning was cut off from, and of one that the end was."""
    first, last = bare.find("<"), bare.rfind("<")
    begun = bare.find(">", 0, first) + 1 if first > 0 else 0
    cut = _TAG_BEGINS.match(bare, last) if bare.find(">", last) < 0 else None
    return (begun if '="' in bare[:begun] or "='" in bare[:begun] else 0) + (len(bare) - last if cut else 0)


def _is_template(bare: str, tags: int, page: bool) -> bool:
    """`page`: it says that it is HTML, which may well speak of a template."""
    marks, fields = len(_TEMPLATE.findall(bare)), len(_FIELD.findall(bare))
    return (bool(marks) and not page) or (marks + fields) * _TAGS_A_FIELD > tags


def _signs(bare: str) -> int:
    """How much speaks for another notation."""
    outside = _TAG.sub("", bare)
    return len(_SIGN.findall(outside)) + _STRONGER * len(_STRONG.findall(outside)) + len(_CODE.findall(bare))


def _without_code(text: str) -> tuple[str, int]:
    """The text without what stands in code, scripts, styles, drawings and comments; how long its code is.

    Their own tags stay. What begins inside of a script, a style or code, and ends it, is of such an element too.
    """
    text = _TICKS.sub("code", _unfenced(text))
    kept, at, quoted, endless = list[str](), 0, 0, set[str]()
    if (led := _LED.search(text)) and not _LEADS.search(text, 0, led.start()):
        tags = _tags(text[: led.start()])
        if led[1].lower() in _QUOTED:
            at, quoted, kept = led.start(), _length(text[: led.start()]), [tags]
        elif len(_CODE.findall(text, 0, led.start())) >= len(tags) // len(_A_TAG):
            at = led.start()
    for match in _OPAQUE.finditer(text):
        name = match[1].lower()
        if match.start() < at or name in endless:
            continue
        end = _ENDS[name].search(text, match.end())
        if end is None and name not in _TO_THE_END:
            endless.add(name)
            continue
        stop = end.end() if end else len(text)
        kept.append(text[at : match.start()])
        kept.append("" if name == "!--" else f"<{name}></{name}>" if end else f"<{name}>")
        if name in _QUOTED:
            inside = text[match.end() : stop]
            kept.append(_tags(inside))
            quoted += _length(inside)
        at = stop
    return "".join([*kept, text[at:]]), quoted


def _tags(text: str) -> str:
    """A tag for each of HTML's tags in a text."""
    return _A_TAG * sum(match[1].lower() in _NAMES for match in _TAG.finditer(text))


def _length(text: str) -> int:
    return len(_SPACE.sub(" ", text))


def _unfenced(text: str) -> str:
    """The text without Markdown's fenced code."""
    if "```" not in text and "~~~" not in text:
        return text
    kept, mark = list[str](), ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if mark:
            mark = "" if fence and fence[1] == mark else mark
        elif fence:
            mark = fence[1]
        else:
            kept.append(line)
    return "\n".join(kept)
