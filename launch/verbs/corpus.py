"""`fmtrain corpus`: questions to a corpus, answered by the corpus wing in a process of its own."""

import argparse
import os
import sys
from pathlib import Path

from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError
from launch.backends.environment import module
from launch.status import store_at
from launch.verbs import child
from launch.verbs.parser import Verbs, add_json, add_store, add_verb


def add(verbs: Verbs) -> None:
    text = "ask a corpus why a document is not in it; train a quality classifier"
    corpus = add_verb(verbs, "corpus", _corpus, text, only_reads=True)
    questions = corpus.add_subparsers(dest="question", required=True, metavar="QUESTION")
    why = questions.add_parser("why", help="which rule dropped a document, or which one it is a copy of")
    why.add_argument("asked", metavar="ID|URL", help="the document's id (FILE:POSITION where the input gives none, "
                     "FILE of a text file), or its address")  # fmt: skip
    sample = questions.add_parser("sample", help="rows of the ledger; without --rule the rules and their numbers")
    sample.add_argument("--rule", help="a rule or one of its reasons: gopher_quality, dedup.minhash")
    sample.add_argument("-n", type=int, default=5, help="how many; 5 unless told")
    sample.add_argument("--seed", type=int, default=1)
    for question in (why, sample):
        question.add_argument("--corpus", help="NAME or NAME@vN, or an artifact's folder; the newest unless told")
        add_json(question)
        add_store(question)
    questions.add_parser("train-classifier", help="a quality classifier for filter.classifier", add_help=False)


def _corpus(args: argparse.Namespace) -> int:
    """The corpus wing answers in a process of its own: this one imports none of it."""
    if args.question == "train-classifier":
        command = module("data_pipelines.train_classifier", *args.rest)
        return child.run(command)
    folder = _corpus_folder(store_at(args.store), args.corpus)
    words = [args.question, *(["--json"] if args.json else [])]
    if args.question == "why":
        words += ["--", args.asked]
    else:
        words += ["-n", str(args.n), "--seed", str(args.seed), *(["--rule", args.rule] if args.rule else [])]
    command = module("data_pipelines.ledger", str(folder), *words)
    return child.run(command)


def _corpus_folder(store: Store, given: str | None) -> Path:
    """The corpus that is asked about; of several in the store the newest."""
    if given is None:
        newest = max(store.artifacts("corpus"), key=lambda a: a.manifest.created, default=None)
        if newest is None:
            raise ConfigError(
                f"no corpus in {store.root} yet; make one: fmtrain run recipe=corpus_web data.files=FILES"
            )
        print(f"of {newest.ref}:", file=sys.stderr)
        return newest.path
    folder = Path(os.path.expanduser(given))
    return folder if (folder / "ledger.parquet").is_file() else store.get(given, "corpus").path
