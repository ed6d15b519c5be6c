"""Licences: identifiers, expressions, lists, and the unknown."""

from typing import Any

import pytest

from data_pipelines.document import Document
from data_pipelines.filters.license import License
from fmtrain.schema import rules


def reason(given: Any, **settings: Any) -> str | None:
    drop = License(rules.License(**settings))(Document("a", "text", meta={} if given is None else {"license": given}))
    return drop.rule if drop else None


@pytest.mark.parametrize(
    "given",
    [
        "MIT", "mit", " Apache-2.0 ", "MIT OR GPL-3.0-only", "GPL-3.0 or mit", "(MIT AND BSD-3-Clause)",
        "MIT AND (GPL-2.0 OR ISC)", "Apache-2.0 WITH LLVM-exception", "Apache-2.0+", ["mit", "Apache-2.0"], ("MIT",),
        "MIT OR NOASSERTION",
    ],
)  # fmt: skip
def test_allowed(given: Any) -> None:
    assert reason(given) is None


@pytest.mark.parametrize(
    "given",
    [
        "GPL-3.0-only", "MIT AND GPL-3.0", ["MIT", "GPL-3.0"], "(MIT", "MIT OR", "MIT)", "AND MIT", "mitx",
        "MIT Apache-2.0", "LicenseRef-mit", ["GPL-3.0", None], "GPL-2.0 AND NOASSERTION", "all rights reserved", "()",
    ],
)  # fmt: skip
def test_not_allowed(given: Any) -> None:
    assert reason(given) == reason(given, unknown="keep") == "license.not_allowed"


@pytest.mark.parametrize(
    "given", [None, "", " ", "NOASSERTION", "none", "unknown", [], [None], ["MIT", ""], "MIT AND NOASSERTION"]
)
def test_unknown(given: Any) -> None:
    assert reason(given) == "license.unknown" and reason(given, unknown="keep") is None


def test_what_is_allowed_is_the_users() -> None:
    assert reason("Public  Domain", allow=["public domain"]) is None
    assert reason("GPL-2.0 WITH Classpath-exception-2.0", allow=["gpl-2.0 with classpath-exception-2.0"]) is None
    assert reason("GPL-2.0", allow=["gpl-2.0 with classpath-exception-2.0"]) == "license.not_allowed"
    assert reason("GPL-3.0-or-later", allow=["GPL-3.0"]) is None
