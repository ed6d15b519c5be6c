"""Addresses: what datatrove's URLFilter drops, this drops; and the lists a user gives."""

from pathlib import Path
from typing import Any

import pytest

from data_pipelines.document import Document
from data_pipelines.filters.url import Url, address, bundled_addresses, bundled_words, hashed, host, parents
from fmtrain.errors import InputError
from fmtrain.schema import rules


def reason(rule: Url, url: Any) -> str | None:
    drop = rule(Document("a", "text", meta={"url": url}))
    return drop.rule if drop else None


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Url:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "domains").write_text("# comment\nbad.example\nwww.Worse.example\n")
    (folder / "urls").write_text("https://www.fine.example/Bad-Page/\n")
    (folder / "words").write_text("casino\n\n")
    lists = {name: [str(folder / name)] for name in ("domains", "urls", "words")}
    return Url(rules.Url(bundled=False, **lists))


def test_own_lists(own: Url) -> None:
    assert reason(own, "http://bad.example/x") == reason(own, "HTTPS://A.B.BAD.example:80/") == "url.domain"
    assert reason(own, "worse.example") == "url.domain"
    assert reason(own, "http://notbad.example/") is None and reason(own, "http://bad.example.org/") is None
    assert reason(own, "http://fine.example/bad-page#top") == "url.address"
    assert reason(own, "http://fine.example/bad-page/more") is None
    assert reason(own, "http://fine.example/best_CASINO-bonus") == "url.word"
    assert reason(own, "http://fine.example/casinos") is None


def test_unknown(own: Url) -> None:
    for url in (None, "", 7):
        assert reason(own, url) is None
        assert reason(Url(rules.Url(bundled=False, unknown="drop")), url) == "url.unknown"
    with pytest.raises(InputError, match="is not there"):
        Url(rules.Url(bundled=False, words=["missing.txt"]))


def test_parts_of_an_address() -> None:
    assert host("http://user:pw@a.example:8080/x?y#z") == "a.example" and host("//a.example/x") == "a.example"
    assert host("http://[2001:db8::1]/") == "2001:db8::1" and host("http://[broken/") == "" and host("") == ""
    assert parents("a.b.c") == ["a.b.c", "b.c", "c"] and parents("8.8.8.8") == ["8.8.8.8"] and parents("") == []
    assert address("HTTP://www.A.example/B/#c") == "a.example/b"
    assert len(hashed(b"a\n#b\n\nc\na")) == 3


def test_soft_words_count_in_twos() -> None:
    bundled_words()
    rule = Url(rules.Url(bundled=False))
    rule._soft = frozenset({"ass", "butt"})
    assert reason(rule, "http://example.org/ass") is None
    assert reason(rule, "http://example.org/ass/butt") == "url.word"


@pytest.mark.long
def test_as_datatrove_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tldextract
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import url_filter

    monkeypatch.setattr(url_filter, "cached_assets_path", lambda **_: str(tmp_path))
    peer = url_filter.URLFilter()
    peer.tldextractor = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    peer.download_data()
    listed = sorted(peer.block_listed_domains)[:: len(peer.block_listed_domains) // 2000]
    listed_urls = sorted(peer.block_listed_url)[::50]
    urls = [f"http://{d}/page.html" for d in listed] + [f"https://www.{d}/" for d in listed[::3]] + listed_urls
    urls += [f"https://example.org/{word}/x" for word in sorted(peer.banned_words | peer.soft_banned_words)]
    urls += ["https://example.org/", "https://docs.python.org/3/", "https://essex.ac.uk/", "https://8.8.8.8/"]
    ours = Url(rules.Url())
    for url in urls:
        theirs = peer.filter(Theirs(text="", id="a", metadata={"url": url}))
        if theirs is not True:
            assert reason(ours, url) is not None, (url, theirs)
    assert len(bundled_addresses()[0]) >= len(peer.block_listed_domains)
    for url in urls[-4:]:
        assert reason(ours, url) is None
