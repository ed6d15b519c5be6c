"""Foreign text where somebody looks at it: a terminal and a Markdown renderer obey nothing that stands in it."""

import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from fmtrain import show

HOSTILE = (
    "a\x1b[31mred\x1b]0;title\x07 \x1b[2J\x9b31m \x90q\x9c \rover\x08\x7f <script>alert(1)</script> <img src=x> "
    "![i](http://e.vil/i.png) [l](javascript:alert(1)) http://e.vil www.e.vil me@e.vil | a | `b` ``c``\n"
    "# heading\n\n- item\n> quote\n\n---\n```\nfence\n```\n<!-- x\n|---|\n&lt; \\` <b>\u202eevil\u2066 \u200fx\ufeff"
)


def renderer() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def test_nothing_is_left_that_a_terminal_obeys() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = show.printable(every)
    left = {c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")}
    invisible = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN")
    left |= {c for c in shown if unicodedata.category(c) != "Cn" and unicodedata.bidirectional(c) in invisible}
    assert left == set("\t\n\u200c\u200d")
    assert show.printable(shown) == shown
    assert show.printable("tab\tnew\nline, é, 語, 👩‍💻, עברית") == "tab\tnew\nline, é, 語, 👩‍💻, עברית"
    assert show.printable("\x1b[31m\x9b\u202e" + os.fsdecode(b"caf\xe9")) == r"\u001b[31m\u009b\u202ecaf\xe9"
    assert json.loads(show.printable(json.dumps({"k": "\x7f\u202e"}, ensure_ascii=False))) == {"k": "\x7f\u202e"}


@pytest.mark.parametrize("place", ["{}", "# {}", "- {}", "> {}", "| a | b |\n|---|---|\n| {} | {} |", "Text {} text."])
def test_markdown_renders_foreign_text_as_a_code_span(place: str) -> None:
    for text in (HOSTILE, "`", "``` `", " x ", "a|b", "\\", "\\`", "<", "plain"):
        tokens = renderer().parse(place.format(*[show.markdown(text)] * place.count("{}")))
        plain = renderer().parse(place.format(*[show.markdown("x")] * place.count("{}")))
        assert [t.type for t in tokens] == [t.type for t in plain], text
        for inline in (t for t in tokens if t.type == "inline"):
            assert {c.type for c in inline.children or []} <= {"code_inline", "text"}, text
            if inline.children and inline.children[0].type == "code_inline":
                assert inline.children[0].content == " ".join(show.printable(text).replace("|", r"\u007c").split())


def test_a_fenced_block_ends_where_we_end_it() -> None:
    for text in (HOSTILE, "`````", "~~~\n````x", ""):
        (block,) = renderer().parse(str(show.fenced(text, "json")))
        assert (block.type, block.content.rstrip("\n")) == ("fence", show.printable(text).rstrip("\n"))


def test_a_template_is_inert_unless_it_says_otherwise() -> None:
    assert show.inert("a # b") == "`a # b`" and show.inert(show.Inert("**b**")) == "**b**" and show.inert(7) == 7
    assert show.inert(show.inert("x")) == "`x`"


def test_a_terminal_stands_before_every_print() -> None:
    under = io.StringIO()
    out = show.Terminal(under)
    print("a\x1b[2Jb", "\u202e", file=out)
    out.erase_line()  # no terminal: nothing
    out.write_exactly("x\x1by")
    assert under.getvalue() == "a\\u001b[2Jb \\u202e\nx\x1by"
    with show.terminal():
        with show.terminal() as inner:
            assert sys.stdout is inner
        assert isinstance(sys.stdout, show.Terminal)
    assert not isinstance(sys.stdout, show.Terminal)
    show.Terminal(None).write("nobody there")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_another_encoding_shows_all_that_it_can(encoding: str, tmp_path: Path) -> None:
    code = (
        "import os; from fmtrain import show\n"
        "with show.terminal(): print('é', '語', os.fsdecode(b'\\xff')); raise ValueError('語')"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, cwd=tmp_path)
    assert done.stdout == {"ascii": b"\\xe9", "latin-1": b"\xe9"}[encoding] + b" \\u8a9e \\xff\n"
    assert b"UnicodeEncodeError" not in done.stderr
