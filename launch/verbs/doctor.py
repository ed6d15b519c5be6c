"""`fmtrain doctor`: what this machine has and lacks."""

import argparse

from launch.status import store_at
from launch.verbs.parser import Verbs, add_store, add_verb


def add(verbs: Verbs) -> None:
    text = "check this machine: packages, processors, disk, Ray's dashboard, Slurm"
    add_store(add_verb(verbs, "doctor", _doctor, text, only_reads=True))


def _doctor(args: argparse.Namespace) -> int:
    from launch.doctor import check

    return check(store_at(args.store).root)
