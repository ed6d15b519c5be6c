"""`fmtrain verify`: read artifacts of a store and compare every byte with what their manifests record."""

import argparse
import json
from typing import Any

from fmtrain.artifacts.manifest import Artifact, verify
from fmtrain.artifacts.store import Unreadable
from fmtrain.errors import ConfigError, ExitCode, StoreError
from launch.status import store_at
from launch.verbs.parser import Verbs, add_json, add_store, add_verb


def add(verbs: Verbs) -> None:
    text = "read artifacts and compare them with their manifests; exit code 5 where one is damaged or cannot be read"
    sub = add_verb(verbs, "verify", _verify, text, only_reads=True)
    sub.add_argument("name", nargs="?", help="NAME or NAME@vN; without it the newest version of each")
    sub.add_argument("--all", action="store_true", help="every version of everything")
    add_store(sub)
    add_json(sub)


def _verify(args: argparse.Namespace) -> int:
    store = store_at(args.store)
    name, _, version = (args.name or "").partition("@")
    found = [e for e in store.entries(name=name or None) if not version or e.path.name == f"v{_number(version):04d}"]
    if args.name and not found:
        raise ConfigError(f"{args.name}: nothing of that name in {store.root}; `fmtrain verify --all` names all")
    if not found and not args.json:
        print(f"nothing is made in {store.root} yet; make something: fmtrain run recipe=quickstart")
        return int(ExitCode.DONE)
    if not args.all and not version:
        found = list({e.path.parent: e for e in found}.values())  # the last of each
    rows = [_row(entry) for entry in found]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print(f"NOT OK   {row['message']}" if row["message"] else f"ok       {row['path']}")
        print(f"{sum(not row['message'] for row in rows)} of {len(rows)} in {store.root} are as they were made")
    return int(ExitCode.STORE if any(row["message"] for row in rows) else ExitCode.DONE)


def _number(version: str) -> int:
    digits = version.removeprefix("v")
    if not digits.isdecimal():
        raise ConfigError(f"@{version} is not a version; expected NAME@vN, e.g. quickstart@v1")
    return int(digits)


def _row(entry: Artifact | Unreadable) -> dict[str, Any]:
    message = entry.why if isinstance(entry, Unreadable) else ""
    if isinstance(entry, Artifact):
        try:
            verify(entry)
        except StoreError as e:
            message = str(e)
    return {"kind": entry.path.parent.parent.name, "path": str(entry.path), "message": message}
