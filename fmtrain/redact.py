"""What is not to be shown: credentials in URLs, settings that came from the environment, keys that stand in it.

A secret stays where it was given and in the memory of those who use it. What is stored for showing passes `shown`, and
so does all that is printed (fmtrain.show). A secret is known by its form (a user's part or a signature in a URL), by
its name (a variable called TOKEN), or because a configuration took it from the environment.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"
LEAST = 8  # characters; what is shorter is met in every other word
_NAMED = r"[\w.-]*(?:token|secret|passw(?:or)?d|pwd|api_?key|access_?key(?:_?id)?|credentials?|authorization|hmac|jwt)"
_SIGNED = r"x-(?:amz|goog|oss)-(?:signature|credential)|googleaccessid|signature|sig|key|auth|sas|policy|key-pair-id"
_KEY = re.compile(rf"{_NAMED}|{_SIGNED}", re.IGNORECASE)
_VARIABLE = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|API_?KEY|ACCESS_?KEY|CREDENTIAL|_PAT$", re.IGNORECASE)
_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]{0,31}://"  # bounded: without an end, a document of one long word takes hours
_URL = re.compile(rf"{_SCHEME}[^\s'\"<>]+")
_FORMS = (
    (re.compile(rf"({_SCHEME})[^/?#\s'\"<>@]+@"), rf"\1{HIDDEN}@"),  # user:password@
    (re.compile(rf"([?&;](?:{_KEY.pattern})=)[^&\s'\"<>#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # no word of a text: "basic arithmetic"
    (re.compile(r"(\b(?i:bearer|basic) )(?=[\w.~+/=-]+[A-Z0-9_.~+=][\w.~+/=-])[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}"), HIDDEN),
)
_known: dict[str, str] = {}
_references: dict[str, str] = {}
_compiled: list[re.Pattern[str]] = []  # of what is known: one, or none where it must be made anew


def learn(secret: str, instead: str = HIDDEN) -> None:
    """From now on `shown` has `instead` for `secret`, plain, in JSON or in a URL. What is short, and a path that is
    there, is no secret."""
    if len(secret) < LEAST or os.path.exists(secret):
        return
    for form in {secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""), unquote(secret)}:
        if len(form) >= LEAST:
            _known[form] = instead
    _compiled.clear()


def learn_urls(text: str) -> None:
    """Learn what may be secret in the URLs of a text: of those that somebody gave us to read, every query."""
    for url in _URL.findall(text):
        try:
            parts = urlsplit(url)
            password = parts.password
        except ValueError:  # no URL after all
            continue
        if password:
            learn(unquote(password))
        for pair in filter(None, parts.query.split("&")):
            name, _, value = pair.partition("=")
            learn(pair, f"{name}={HIDDEN}")
            if _KEY.fullmatch(name) or len(value) >= 20:
                learn(unquote(value))


def learn_environment() -> None:
    """Learn the values of variables whose names say that they are keys."""
    for name, value in os.environ.items():
        if _VARIABLE.search(name):
            learn(value, f"${name}")


def refer(key: str, reference: str, value: Any) -> None:
    """The setting `key` was given as `reference`, which names variables of the environment, and stands for `value`."""
    _references[key] = reference
    for text in _texts(value):
        learn(text, reference)
    for name in re.findall(r"\$\{oc\.env:\s*(\w+)", reference):
        learn(os.environ.get(name, ""), f"${{oc.env:{name}}}")


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is learnt within is forgotten behind it: the next configuration that this process plans has its own."""
    known, references = dict(_known), dict(_references)
    try:
        yield
    finally:
        for mine, before in ((_known, known), (_references, references)):
            mine.clear()
            mine.update(before)
        _compiled.clear()


def forget_references() -> None:
    """Another configuration begins; what is secret stays so."""
    _references.clear()


def shown(text: str) -> str:
    """`text` without what is not to be shown."""
    if _known:
        if not _compiled:
            _compiled.append(re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True)))))
        text = _compiled[0].sub(lambda match: _known[match[0]], text)
    for pattern, instead in _FORMS:
        text = pattern.sub(instead, text)
    return text


def shown_in(data: Any) -> Any:
    """JSON data with every text `shown`."""
    if isinstance(data, dict):
        return {key: shown_in(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [shown_in(value) for value in data]
    return shown(data) if isinstance(data, str) else data


def as_given(config: Any, key: str = "") -> Any:
    """A configuration as it is stored: what came from the environment is the reference that was given."""
    if key in _references:
        return _references[key]
    if isinstance(config, dict):
        return {name: as_given(value, f"{key}.{name}" if key else name) for name, value in config.items()}
    if isinstance(config, list):
        return [as_given(value, f"{key}[{n}]") for n, value in enumerate(config)]
    return shown(config) if isinstance(config, str) else config


def differences(whole: Any, hidden: Any) -> None:
    """Learn what `shown_in` has hidden of JSON data, in a process that was given both."""
    if isinstance(whole, dict):
        for key, value in whole.items():
            differences(value, hidden[key])
    elif isinstance(whole, list):
        for value, other in zip(whole, hidden, strict=True):
            differences(value, other)
    elif isinstance(whole, str) and whole != hidden:
        learn(whole, hidden)
        learn_urls(whole)


def plain_url(url: str) -> str:
    """A URL's identity: without who asks for it. The query of https is a signature, or as good as one."""
    head, separator, rest = url.partition("://")
    if head in ("http", "https"):
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{head}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _texts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [value] if isinstance(value, str) else []
