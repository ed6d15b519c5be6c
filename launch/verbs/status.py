"""`fmtrain status` and `fmtrain logs`: the runs of a store."""

import argparse
import json
import sys

from launch.status import store_at
from launch.verbs.parser import Verbs, add_json, add_store, add_verb


def add(verbs: Verbs) -> None:
    status = add_verb(verbs, "status", _status, "the runs of a store and how far they are", only_reads=True)
    status.add_argument("run", nargs="?", help="a run's id, or the start of one; without it the 15 latest runs")
    add_store(status)
    add_json(status)
    logs = add_verb(verbs, "logs", _logs, "the log of a stage", only_reads=True)
    logs.add_argument("run", nargs="?", help="a run's id; without it the latest")
    logs.add_argument("stage", nargs="?", help="a stage; without it the last that ran")
    logs.add_argument("--rank", type=int, default=0)
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing as the log grows")
    add_store(logs)


def _status(args: argparse.Namespace) -> int:
    from launch import status

    store = store_at(args.store)
    found = status.runs(store, args.run)
    if not args.run and (word := status.passed_over(store)):
        print(word, file=sys.stderr)
    print(json.dumps(found, indent=1) if args.json else status.overview(found, store, detailed=args.run is not None))
    return 0


def _logs(args: argparse.Namespace) -> int:
    from launch import status

    return status.logs(store_at(args.store), args.run, args.stage, args.rank, args.follow)
