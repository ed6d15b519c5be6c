"""Identity: canonical JSON, its SHA-256, and which field two payloads differ in."""

import hashlib
import json
from typing import Any


def canonical(data: Any) -> str:
    """JSON with sorted keys and no white space; NaN and objects without a stable form are refused."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(payload: Any) -> str:
    """The identity of a stage's result: hex SHA-256 of its canonical payload, 32 digits."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()[:32]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The fields in which two payloads differ, as `path: old -> new`, outermost first."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            where = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                found.append(f"{where}: {_of(old, key)} -> {_of(new, key)}")
            else:
                found += differences(old[key], new[key], where)
        return found
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _of(data: dict[str, Any], key: str) -> str:
    return _short(data[key]) if key in data else "not there"


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 40 else text[:37] + "..."
