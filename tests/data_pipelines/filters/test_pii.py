"""Redaction: what must be found, what must stay, and what holds for any text."""

import ipaddress
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters import pii_patterns as patterns
from data_pipelines.filters.pii import PLACEHOLDERS, Pii, Span, replace
from fmtrain.schema import rules

PII = Pii(rules.Pii())
BODY = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj" for _ in range(3))
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"

FOUND = {
    "email": [
        "jane.doe@example.com",
        "j+tag@mail.example.co.uk",
        "o'neil@example.org",
        "x@xn--bcher-kva.example",
        "J_D%x@EXAMPLE.COM",
        "jürgen@example.de",
    ],
    "ip": [
        "74.125.224.84",
        "8.8.8.200",
        "2001:4860:4860::8888",
        "2a00:1450:4001:0801:0000:0000:0000:200e",
        "2a02:26f0:fe00::172.217.16.14",
    ],
    "phone": [
        "+1 650 967-4675",
        "+44 20 7946 0958",
        "+49 (0)30 901820",
        "+33 1 42 68 53 00",
        "(412) 268-4387",
        "213-484-0482",
        "1-866-943-3427",
        "910.538.0115",
        "01 42 68 53 00",
        "07885 577 899",
        "030/1234567",
        "0044 20 7946 0958",
        "+14155552671",
    ],
    "card": [
        "4111 1111 1111 1111",
        "4012888888881881",
        "5555-5555-5555-4444",
        "3782 822463 10005",
        "30569309025904",
        "6011111111111117",
        "3530111333300000",
        "2223003122003222",
        "6304000000000000000",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR1420041010050500013M02606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "CH93-0076-2011-6238-5295-7",
    ],
    "api_key": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "aB3dE6gH9j" * 3 + "aB3dE6",
        "github_pat_" + "11AAAAAA0_" * 4,
        "AIza" + "SyA1b2C3d" * 3 + "x" * 8,
        "xoxb-123456789012-abcdefABCDEF",
        "sk-proj-" + "a1B2c3D4e5" * 4,
        "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
        "glpat-" + "xYz12-3456789012345a",
        "hf_" + "aBcDeFgHiJ" * 3 + "aBcD",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3.SflKxwRJSMeKKF2QT4fwpMeJ",
    ],
    "private_key": [
        KEY,
        KEY.replace("RSA ", ""),
        KEY.replace("\n", "\\n"),
        KEY[: len(KEY) // 2],
        KEY.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,5F2A\n\n", 1),
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG\n\n{BODY}\n=aBcD\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
}
STAYS = [
    "a@b",
    "@decorator.name",
    "user@localhost",
    "git@",
    "image@2x.png1",
    "x@y..com",  # e-mail
    "3.3.0.1",
    "v192.168.0.1",
    "version 74.125.224.84",
    "1.2.3",
    "999.1.2.3",
    "74.125.224.84.5",
    "192.168.1.200",
    "10.0.0.99",
    "127.0.0.1",
    "224.0.0.251",
    "std::vector",
    "a::b",
    "12:30:45",
    "2006::",
    "::",
    "fe80::1",
    "2001:db8::1",
    "dead:beef",
    "252.227-7013",
    "2026-11-24",
    "24.11.2026 10:45",
    "ISBN 978-3-16-148410-0",
    "ISBN 0-306-40615-2",
    "1234567890",
    "00101101",
    "12,345,678,901",
    "$1-800-555",
    "0.1234 5678",
    "ISSN 2049-3630",
    "3.14159 26535",  # phone
    "4111 1111 1111 1112",
    "4012888888881882",
    "1234567812345678",
    "4111111111111111x",
    "0000 0000 0000 0000",
    "DE89370400440532013001",
    "DE8937040044053201300",
    "XX89370400440532013000",
    "GB29NWBK60161331926819X",
    "AKIAEXAMPLE",
    "sk-learn",
    "sk-" + "a" * 40,
    "hf_hub_download",
    "ghp_short",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "token = get_token_from_environment()",
    "password: correct horse",
    "secret_key = os.environ['A_SECRET_KEY_OF_MINE']",
    "max_tokens=1024",
    "api_key = YOUR_API_KEY_GOES_HERE",
    "key: 2026-11-24T10:45:00Z",
    "password=xxxxxxxxxxxxxxxxxxxx",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n" + BODY,
    "the PRIVATE KEY is secret",
]


def redacted(text: str, rule: Pii = PII) -> tuple[str, dict[str, int]]:
    doc = Document("a", text)
    assert rule(doc) is None
    return doc.text, doc.counts


@pytest.mark.parametrize(("kind", "item"), [(kind, item) for kind, items in FOUND.items() for item in items])
def test_found(kind: str, item: str) -> None:
    for before, after in (("See ", " there."), ("(", ")"), ("", ""), ("x: ", ", y"), ('"', '"'), ("line\n", "\nline")):
        assert redacted(f"{before}{item}{after}") == (f"{before}{PLACEHOLDERS[kind]}{after}", {f"pii.{kind}": 1})


@pytest.mark.parametrize("item", STAYS)
def test_stays(item: str) -> None:
    assert redacted(f"See {item} there.") == (f"See {item} there.", {})


def test_secrets_by_their_assignment() -> None:
    for name in (
        'api_key = "',
        "SECRET_KEY: '",
        'export AUTH_TOKEN="',
        '"client_secret": "',
        "password=",
        "db_passwd: ",
    ):
        end = name[-1] if name[-1] in "'\"" else ""
        assert redacted(f"{name}f8K2mQ9xT4vB7nL1{end}\n") == (f"{name}<API_KEY>{end}\n", {"pii.api_key": 1})
    assert redacted("sha256 = f8K2mQ9xT4vB7nL1")[1] == {}


def test_a_cue_makes_a_number_a_phone_number() -> None:
    assert redacted("Tel: 86-23-68639999")[0] == "Tel: <PHONE>"
    assert redacted("call us at 555 0199 now")[0] == "call us at <PHONE> now"
    assert redacted("item 86-23-68639999")[1] == {}


def test_settings() -> None:
    private = Pii(rules.Pii(kinds=["ip"], private_ips=True))
    assert redacted("10.0.0.99 fe80::1 fd00:1:2::3 74.125.224.84", private)[1] == {"pii.ip": 4}
    assert redacted("jane@example.com", private)[1] == {}


def test_longest_claim_first() -> None:
    text = f"{KEY}\njane@74.125.224.84.example.com 4111 1111 1111 1111"
    assert redacted(text)[0] == "<PRIVATE_KEY>\n<EMAIL> <CARD>"


ITEMS = [item for items in FOUND.values() for item in items]
GLUE = st.sampled_from(
    [" ", "\n", ", ", "-", ".", ":", "=", '"', "", "/", "+", "0", "a", "tel: ", "key=", "<EMAIL>", "\u00e9", "@"]
)
TEXTS = st.lists(st.sampled_from(ITEMS + STAYS) | GLUE | st.text(max_size=6), max_size=12).map("".join)


@given(TEXTS)
def test_redaction_is_idempotent(text: str) -> None:
    once, _ = redacted(text)
    assert redacted(once) == (once, {})


@given(TEXTS)
def test_what_is_redacted_matches_and_the_rest_is_untouched(text: str) -> None:
    spans = PII.find(text)
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:], strict=False))
    kept = re.split("|".join(map(re.escape, PLACEHOLDERS.values())), replace(text.replace("<", "("), spans))
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
    assert kept == [text[a:b].replace("<", "(") for a, b in zip(edges[::2], edges[1::2], strict=True)]
    for span in spans:
        assert valid(span, text[span.start : span.end])


def valid(span: Span, item: str) -> bool:
    digits = re.sub(r"\D", "", item)
    match span.kind:
        case "card":
            return patterns.luhn(digits) and 14 <= len(digits) <= 19
        case "iban":
            return patterns.iban_valid(re.sub("[ -]", "", item))
        case "ip":
            return ipaddress.ip_address(item).is_global
        case "email":
            return item.count("@") == 1 and "." in item.partition("@")[2]
        case "phone":
            return 7 <= len(digits) <= 15
        case "private_key":
            return item.startswith("-----BEGIN ")
    return len(item) >= 15


@given(st.integers(10**15, 10**16 - 1))
def test_a_number_that_fails_luhn_stays(number: int) -> None:
    text = f"Card {number} here"
    assert ("card" in {span.kind for span in PII.find(text)}) <= patterns.luhn(str(number))


@given(st.sampled_from(FOUND["iban"]), st.data())
def test_an_iban_with_one_character_changed_stays(iban: str, data: Any) -> None:
    at = data.draw(st.sampled_from([i for i, c in enumerate(iban) if i >= 4 and c.isdigit()]))
    other = data.draw(st.sampled_from([d for d in "0123456789" if d != iban[at]]))
    assert "iban" not in {span.kind for span in PII.find(f"Pay {iban[:at]}{other}{iban[at + 1 :]} now")}


def test_luhn_and_mod_97_catch_every_single_error() -> None:
    rng = random.Random(0)
    for _ in range(200):
        digits = [rng.randrange(10) for _ in range(15)]
        last = next(d for d in range(10) if patterns.luhn("".join(map(str, [*digits, d]))))
        assert sum(patterns.luhn("".join(map(str, [*digits, d]))) for d in range(10)) == 1 and 0 <= last <= 9


def test_hostile_texts_take_no_time() -> None:
    for text in (
        "a" * 200_000,
        "1" * 200_000,
        "1 " * 100_000,
        "@a." * 60_000,
        ":" * 200_000,
        "a:" * 100_000,
        "-----BEGIN RSA PRIVATE KEY-----" * 5_000,
        "-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 200_000,
        "a." * 50_000 + "@",
        "(212) " * 30_000,
        "key=" * 50_000,
        "sk-" * 60_000,
        "A" * 100_000 + "1" * 100_000,
    ):
        redacted(text)
