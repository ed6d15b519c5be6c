"""Text that attacks whoever looks at it, and what a browser would make of a page that holds it."""

from html.parser import HTMLParser

EVIL = (
    "x</td></table><script>alert(1)</script><img src=http://e.vil/i onerror=alert(1)> ![i](http://e.vil/i.png) "
    "[l](javascript:alert(1)) http://e.vil me@e.vil | `b` ``c`` \u202egnp\u2066 \x1b[31m\n\n# heading\n```\n> q\n---\n"
)


class Elements(HTMLParser):
    """A page's elements with the names of their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
