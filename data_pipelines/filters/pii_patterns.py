"""What personal data and secrets look like: for each kind a function from a text to the spans it covers.

A pattern finds candidates; where a kind has a checksum or a registry (Luhn, ISO 7064, IP address blocks), that decides.
Kinds without one ask for a shape or a cue that other numbers lack: precision before recall, for a corpus loses more by
a mangled table than by a phone number of unusual form. Every finder first asks for a character it cannot do without.
"""

import functools
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterator

Spans = Iterator[tuple[int, int]]

# Patterns begin with a class of characters, which `re` skips to at once, and look behind only then: read (?<![x].) as
# "and before this character stands no x".
_DOMAIN = re.compile(
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24})(?![\w@]|-\w)"
)
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")  # icon@2x.png
_LOCAL = re.compile(r"[\w.+%'&/=-]{1,65}$")

# Issuers' prefixes (ISO/IEC 7812): Visa, Mastercard, Amex, Diners, Discover, JCB, UnionPay, Maestro; bare or in groups
_CARD = re.compile(
    r"[2-6](?<![\w.,/+\-].)(?:"
    r"(?:(?<=[46])\d{3}|(?<=5)[0-8]\d\d|(?<=2)[2-7]\d\d|(?<=3)5\d\d)"
    r"([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1?\d{3})?"  # 16 or 19
    r"|(?<=3)[47]\d\d([ -]?)\d{6}\2\d{5}"  # 15
    r"|(?<=3)(?:0[0-5]|[689]\d)\d([ -]?)\d{6}\3\d{4}"  # 14
    r")(?![\w\-/]|[.,:]\d| \d)"
)

# Length of an IBAN by country: SWIFT, IBAN registry, release 99
IBAN_LENGTHS = {
    key: int(length)
    for length, keys in {
        "15": "NO", "16": "BE", "18": "DK FK FI FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HU LB NI PL SV", "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC",
        "32": "LC", "33": "RU",
    }.items()
    for key in keys.split()
}  # fmt: skip
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?:[ -]?[A-Z0-9]){11,30}")

_IPV4 = re.compile(r"\d(?<![\w.\-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w\-]|\.\d)")
_TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"(?:[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){1,7}(?:(?<=:)(?:\d{1,3}\.){3}\d{1,3})?(?!\w|:\w|\.\d)")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|versions?|release|build|firmware|revision|rev|section)[.:]?\s*|[§<>=~^]=?\s*)$", re.I
)
_IN_IPV6, _UNIQUE_LOCAL = frozenset("0123456789abcdefABCDEF:"), ipaddress.ip_network("fc00::/7")
_LARGEST_VERSION = 50  # four parts all below it are a version number or a section: one address in 700 is lost

_BEFORE, _AFTER = r"(?<![\w.+/=:@#$€£\-].)", r"(?![\w\-/%@]|[.,:]\d| \d{3}\b)"
_ALONE = r"(?<!\d[ \-].)"  # no group of a longer number
_PHONE = [  # international; North American; French with dots; others with a trunk 0
    re.compile(rf"{start}(?:\(0?\d{{1,4}}\)[ .\-]?)?\d{{1,4}}(?:[ .\-/]?\d{{1,4}}){{1,5}}{_AFTER}")
    for start in (rf"\+{_BEFORE}[1-9]\d{{0,2}}[ .\-]?", rf"0{_BEFORE}{_ALONE}0[1-9]\d{{0,2}}(?:[ .\-]|(?=\())")
] + [
    re.compile(rf"{pattern}{_AFTER}")
    for pattern in (
        rf"\({_BEFORE}[2-9]\d\d\) ?[2-9]\d\d[ .\-]\d{{4}}",
        rf"[2-9]{_BEFORE}{_ALONE}\d\d(?:([\-.])[2-9]\d\d\1| [2-9]\d\d[ \-])\d{{4}}",
        rf"1{_BEFORE}{_ALONE}[ .\-](?:\([2-9]\d\d\) ?|[2-9]\d\d[ .\-])[2-9]\d\d[ .\-]\d{{4}}",
        rf"0{_BEFORE}{_ALONE}[1-9](\.)\d\d(?:\1\d\d){{3}}",
        rf"0{_BEFORE}{_ALONE}(?=(?:[ \-/]?\d){{8}})[1-9]\d{{0,4}}[ \-/]\d{{2,8}}(?:[ \-]\d{{2,4}}){{0,3}}",
        rf"\({_BEFORE}0[1-9]\d{{1,3}}\)[ \-/]?\d{{3,4}}[ \-]?\d{{3,4}}",
    )
]
_NUMBER = re.compile(rf"[(+\d](?<![\w.,/+\-].)[\d ().\-/]{{5,19}}\d{_AFTER}")
_CUE = re.compile(
    r"\b(?:tel(?:ephone|\u00e9phone|efon)?|phone|fax|mobile|mob|cell(?:phone)?|whatsapp|number is"
    r"|(?:call|dial|text|reach)(?: me| us)?(?: at| on)?)"
    r"(?: ?(?:no|number|nr|#))?\.?(?: is)? ?[:.]? ?$",
    re.I,
)
_DATE = re.compile(r"^(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?|^\d\d?[-./]\d\d?[-./](?:19|20)\d\d(?!\d)")

# Keys that say by their form what they are: (a text that every one of them holds, the whole)
_KEYS = [
    (("AKIA", "ASIA", "ABIA", "ACCA"), re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b")),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b")),
    (("github_pat_",), re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b")),
    (("glpat-",), re.compile(r"\bglpat-[\w-]{20,}")),
    (("AIza",), re.compile(r"(?<![\w-])AIza[\w-]{35}(?![\w-])")),
    (("ya29.",), re.compile(r"\bya29\.[\w-]{30,}")),
    (("GOCSPX-",), re.compile(r"\bGOCSPX-[\w-]{28}(?![\w-])")),
    (("xox",), re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}")),
    (("xapp-",), re.compile(r"\bxapp-\d-[A-Za-z0-9-]{20,250}")),
    (("hooks.slack.com",), re.compile(r"\bhooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}")),
    (("sk-",), re.compile(r"(?<![\w-])sk-(?=[\w-]*\d[\w-]*[A-Za-z])[A-Za-z0-9_-]{32,200}")),  # OpenAI, Anthropic
    (("k_live_", "k_test_"), re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}\b")),
    (("hf_",), re.compile(r"\bhf_[A-Za-z]{34}\b")),
    (("npm_",), re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    (("pypi-",), re.compile(r"\bpypi-AgE[\w-]{50,}")),
    (("SG.",), re.compile(r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])")),
    (("eyJ",), re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")),  # JSON web token
]  # fmt: skip
# A secret by its assignment: the name says so, the value is random
_ASSIGNED = re.compile(
    r"[=:](?:>|(?<=:)=)?\s{0,3}(?:bearer\s)?(?P<quote>['\"`]?)(?P<value>[A-Za-z0-9+/_\-=.~]{16,200})(?P=quote)(?![\w(\[<])"
)
_SECRET = re.compile(
    r"(?:(?:api|access|private|secret|encryption|signing)[_\-. ]?key|secret|token|passw(?:or)?d|passphrase|pwd)"
    r"['\"]?\]?\s{0,3}$",
    re.I,
)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<what>(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----(?:\s|\\r|\\n)*"
    r"(?:[A-Za-z-]{3,30}: [^\n\\]{0,200}(?:\s|\\r|\\n)+)*"  # headers
    r"[A-Za-z0-9+/=]{16,}(?:(?:\s|\\r|\\n|[\"'+,])*[A-Za-z0-9+/=]{16,})*"
    r"(?:[A-Za-z0-9+/=\s\\\"',]{0,60}-----END (?P=what)-----)?"
)


def emails(text: str) -> Spans:
    """addr-spec of RFC 5322 without quoted local parts, and a domain that ends in letters."""
    for domain in _DOMAIN.finditer(text):
        at = domain.start()
        before = _LOCAL.search(text, max(at - 65, 0), at)
        if before is None or len(before.group()) > 64:
            continue
        local = before.group().lstrip(".+%'&/=-")
        if local and ".." not in local and not local.endswith(".") and not domain.group().endswith(_PICTURES):
            yield at - len(local), domain.end()


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def cards(text: str) -> Spans:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def iban_valid(iban: str) -> bool:
    """ISO 13616: the country's length, and ISO 7064 mod 97-10 over the rearranged number."""
    if len(iban) != IBAN_LENGTHS.get(iban[:2], 0) or not iban[2:4].isdigit():
        return False
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def ibans(text: str) -> Spans:
    for match in _IBAN.finditer(text):
        length, end, seen = IBAN_LENGTHS.get(match.group()[:2], 0), match.start(), 0
        while end < match.end() and seen < length:
            seen += text[end] not in " -"
            end += 1
        alone = end == len(text) or not text[end].isalnum()
        if alone and iban_valid(re.sub("[ -]", "", text[match.start() : end])):
            yield match.start(), end


def ips(text: str, private: bool = False) -> Spans:
    """IPv4 and IPv6 that the world can reach; `private`: also the others. Four-part version numbers stay."""
    last = 0
    for colons in _TWO_COLONS.finditer(text):
        start, farthest = colons.start(), max(last, colons.start() - 40)  # an address has 39 characters, 45 with IPv4
        while start > farthest and text[start - 1] in _IN_IPV6:
            start -= 1
        found = _IPV6.match(text, start) if start >= last else None
        if found is None or (start and (text[start - 1].isalnum() or text[start - 1] in "_.:")):
            continue
        last = end = found.end()
        if text.endswith(":", start, end) and not text.endswith("::", start, end):
            end -= 1  # the colon of the sentence
        if _address(text[start:end], private):
            yield start, end
    for match in _IPV4.finditer(text):
        if _address(match.group(), private) and not _VERSION.search(text, max(match.start() - 12, 0), match.start()):
            yield match.span()


@functools.lru_cache(4096)
def _address(text: str, private: bool) -> bool:
    """It is an address worth hiding. IPv6 must show three groups: `a::b` is more often C++, `2006::` a line's end."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_multicast or address.is_unspecified:
        return False
    if address.version == 4:
        return max(address.packed) >= _LARGEST_VERSION and (private or address.is_global)
    if len([group for group in text.split(":") if group]) < 3 and not (private and address.is_link_local):
        return False
    if int(address) >> 125 == 1:  # 2000::/3, the global unicast block
        return private or address.is_global
    return private and (address.is_link_local or address in _UNIQUE_LOCAL)


def phones(text: str) -> Spans:
    """Numbers of an international or national form, and any that a word like `tel.` announces."""
    found = [m.span() for pattern in _PHONE for m in pattern.finditer(text) if 8 <= _digits(m.group()) <= 15]
    for match in _NUMBER.finditer(text):
        if 7 <= _digits(match.group()) <= 15 and _CUE.search(text, max(match.start() - 24, 0), match.start()):
            found.append(match.span())
    return iter([span for span in sorted(found, key=lambda s: (s[0], -s[1])) if not _DATE.match(text[slice(*span)])])


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def api_keys(text: str) -> Spans:
    """Keys of a known form, then secrets by their assignment (entropy after detect-secrets)."""
    for needed, pattern in _KEYS:
        if any(part in text for part in needed):
            yield from (match.span() for match in pattern.finditer(text))
    for match in _ASSIGNED.finditer(text):
        if random_looking(match.group("value")) and _SECRET.search(text, max(match.start() - 30, 0), match.start()):
            yield match.span("value")


def random_looking(value: str) -> bool:
    """Letters and digits that follow no word's order: a high entropy, and several changes between the two."""
    letters, digits = sum(map(str.isalpha, value)), _digits(value)
    changes = sum(a.isdigit() != b.isdigit() for a, b in zip(value, value[1:], strict=False))
    if letters < 3 or digits < 2 or changes < 4:
        return False
    hexadecimal = all(c in "0123456789abcdefABCDEF-" for c in value)
    return entropy(value) >= (2.8 if hexadecimal else 3.3)


def entropy(text: str) -> float:
    """Bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def private_keys(text: str) -> Spans:
    """PEM and PGP blocks, also with line ends written as \\n; one cut off before its END goes as far as its base64."""
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _PRIVATE_KEY.finditer(text))
