"""Why a stage is made: in what it differs from the version of its name that is most like it, in a person's words."""

from typing import Any

from fmtrain.artifacts.fingerprint import differences
from fmtrain.artifacts.hub import is_commit

_LONG = 40  # characters of a value


def why(
    before: dict[str, Any], now: dict[str, Any], were: dict[str, str] | None = None, are: dict[str, str] | None = None
) -> str:
    """The first difference between two payloads of a fingerprint, what was made of other parents last.

    `were` and `are` say by role what the parents are called: of a model on a hub OWNER/NAME@COMMIT.
    """
    given = _changed(before.get("job"), now.get("job"))
    if before.get("revision") != now.get("revision"):
        given.insert(0, f"its kind makes another result now (revision {now.get('revision')})")
    if files := _files(before.get("sources"), now.get("sources")):
        given.append(files)
    if given:
        return given[0] + (f" and {len(given) - 1} more" if len(given) > 1 else "")
    found = differences(before.get("parents", {}), now.get("parents", {}))
    roles = sorted({line.partition(":")[0].partition(".")[0] for line in found})
    if roles:
        return f"new {', '.join(roles)}" + "".join(_moved(role, were or {}, are or {}) for role in roles)
    other = before.get("plugins") != now.get("plugins")
    return "another plug-in, or another state of it" if other else "another identity"


def _moved(role: str, were: dict[str, str], are: dict[str, str]) -> str:
    """Of the same name on a hub, from which commit to which."""
    (name, _, before), (same, _, now) = were.get(role, "").partition("@"), are.get(role, "").partition("@")
    if name == same and is_commit(before) and is_commit(now):
        return f" ({name}: commit {before[:12]} -> {now[:12]})"
    return ""


def _changed(before: Any, now: Any, key: str = "") -> list[str]:
    """The settings that differ; where another option is chosen, that alone."""
    before, now = _named(before), _named(now)
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{key}: {_short(before)} -> {_short(now)}"]
    if before.get("name") != now.get("name"):
        return [f"{key}: {_short(before.get('name'))} -> {_short(now.get('name'))}"]
    found = []
    for name in sorted(set(before) | set(now)):
        inner = key if name == "stage" and not key else f"{key}.{name}".lstrip(".")
        if isinstance(now.get(name), dict) and not before.get(name):
            found.append(f"{inner}: new")
        elif isinstance(before.get(name), dict) and not now.get(name):
            found.append(f"{inner}: gone")
        elif name not in before or name not in now:  # of another version of us
            found.append(f"{inner}: {_short(before.get(name))} -> {_short(now.get(name))}")
        else:
            found += _changed(before[name], now[name], inner)
    return sorted(found, key=lambda line: line.endswith(": null -> null"))


def _named(value: Any) -> Any:
    """A list of what has names as a map of them: of the models that an evaluation scores one may differ."""
    named = isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value)
    return {one["name"]: one for one in value} if named else value


def _files(before: Any, now: Any) -> str:
    """Which of the input files are new, gone or changed; "" where none is."""
    try:
        old, new = ({entry[0]: entry for entry in sources} for sources in (before or [], now or []))
    except (TypeError, IndexError):
        return "other input files"
    counts = {
        "new": len(new.keys() - old.keys()),
        "gone": len(old.keys() - new.keys()),
        "changed": sum(new[name] != old[name] for name in new.keys() & old.keys()),
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"input files: {said}" if said else ""


def _short(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."
