"""The command line: fmtrain run, plan, status, logs, models, corpus, generate, doctor; overrides follow the verb.

Answers --help, plan and a rejected configuration without importing torch, ray, deepspeed or datatrove.
"""

import argparse
import datetime
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fmtrain.errors import ConfigError, ExitCode, FmtrainError
from fmtrain.run import lease
from fmtrain.run.manifest import Artifact
from fmtrain.run.storage import disk_errors, read_json, write_json
from fmtrain.run.store import Store
from launch.status import DEFAULT_STORE, store_at
from launch.terminal import table

if TYPE_CHECKING:
    from fmtrain.schema.launch import Slurm
    from fmtrain.schema.root import Root

_READ_ONLY = ("plan", "status", "logs", "models", "corpus", "doctor")
_OVERRIDES = "Hydra overrides, e.g. recipe=quickstart stages.dpo.objective.beta=0.2 objective@stages.dpo.objective=dpo"


class _Parser(argparse.ArgumentParser):
    """Writes its help out before it leaves, where a closed pipe is noticed."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()
        super().exit(status, message)


def main(argv: list[str] | None = None) -> int:
    """Parse, dispatch, and turn every failure into one message and its exit code."""
    only_reads = True
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)
        only_reads = args.verb in _READ_ONLY
        code = int(args.function(args))
        sys.stdout.flush()
        return code
    except FmtrainError as e:
        print(f"error: {e}", file=sys.stderr)
        return int(e.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if only_reads:
            return int(ExitCode.DONE)
        print("error: the output was closed before the work was done; the same command goes on", file=sys.stderr)
        return int(ExitCode.INTERNAL)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except Exception as e:
        traceback.print_exc()
        print(f"error: internal: {type(e).__name__}: {e}", file=sys.stderr)
        return int(ExitCode.INTERNAL)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    args, unknown = parser.parse_known_args(argv)
    if getattr(args, "question", "") == "train-classifier":
        args.rest = argv[argv.index("train-classifier") + 1 :]  # its own parser's, --help too
    elif unknown:
        if hasattr(args, "overrides") and not any(u.startswith("-") for u in unknown):
            args.overrides += unknown
        else:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fmtrain", description="From raw text to an aligned, versioned model.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    run = verb("run", _run, "make every stage that is not made yet")
    run.add_argument("overrides", nargs="*", help=_OVERRIDES)
    run.add_argument("--wait", action="store_true", help="launch=slurm: follow the job and return its exit code")
    plan = verb("plan", _plan, "show what run would do: reuse, run or resume, why, and how long")
    plan.add_argument("overrides", nargs="*", help=_OVERRIDES)
    status = verb("status", _status, "the runs of a store and how far they are")
    status.add_argument("run", nargs="?", help="a run's id, or the start of one; without it the latest runs")
    logs = verb("logs", _logs, "the log of a stage")
    logs.add_argument("run", nargs="?", help="a run's id; without it the latest")
    logs.add_argument("stage", nargs="?", help="a stage; without it the last that ran")
    logs.add_argument("--rank", type=int, default=0)
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing as the log grows")
    models = verb("models", _models, "the models of a store, published and trained")
    generate = verb("generate", _generate, "let a model write: fmtrain generate quickstart@v1 'def add(a, b):'")
    generate.add_argument("model", help="NAME or NAME@vN, or a Hugging Face folder")
    generate.add_argument("prompt", help="one that begins with - stands last, after --")
    generate.add_argument("--max-new-tokens", type=int, default=128)
    generate.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    generate.add_argument("--seed", type=int, default=1)
    generate.add_argument("--raw", action="store_true", help="continue the text itself, without the chat template")
    _corpus_parsers(verb("corpus", _corpus, "ask a corpus why a document is not in it; train a quality classifier"))
    doctor = verb("doctor", _doctor, "check this machine: packages, processors, disk, Ray's dashboard, Slurm")
    for sub in (status, logs, models, generate, doctor):
        sub.add_argument(
            "--store",
            default=os.environ.get("FMTRAIN_STORE", DEFAULT_STORE),
            help="default FMTRAIN_STORE, or ./store",
        )
    for sub in (status, models):
        sub.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _corpus_parsers(corpus: argparse.ArgumentParser) -> None:
    verbs = corpus.add_subparsers(dest="question", required=True, metavar="QUESTION")
    why = verbs.add_parser("why", help="which rule dropped a document, or which one it is a copy of")
    why.add_argument("id", help="the document's id, or FILE:POSITION where the input gives none")
    sample = verbs.add_parser("sample", help="rows of the ledger; without --rule the rules and their numbers")
    sample.add_argument("--rule", help="a rule or one of its reasons: gopher_quality, dedup.minhash")
    sample.add_argument("-n", type=int, default=5, help="how many; 5 unless told")
    sample.add_argument("--seed", type=int, default=1)
    for question in (why, sample):
        question.add_argument("--corpus", help="NAME or NAME@vN, or an artifact's folder; the newest unless told")
        question.add_argument("--json", action="store_true", help="machine-readable")
        question.add_argument("--store", default=os.environ.get("FMTRAIN_STORE", DEFAULT_STORE))
    verbs.add_parser("train-classifier", help="a quality classifier for filter.classifier", add_help=False)


def _corpus(args: argparse.Namespace) -> int:
    """The corpus wing answers in a process of its own: this one imports none of it."""
    if args.question == "train-classifier":
        return subprocess.run([sys.executable, "-m", "data_pipelines.train_classifier", *args.rest]).returncode
    folder = _corpus_folder(store_at(args.store), args.corpus)
    words = [args.question, *(["--json"] if args.json else [])]
    if args.question == "why":
        words += ["--", args.id]
    else:
        words += ["-n", str(args.n), "--seed", str(args.seed), *(["--rule", args.rule] if args.rule else [])]
    return subprocess.run([sys.executable, "-m", "data_pipelines.ledger", str(folder), *words]).returncode


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


def _run(args: argparse.Namespace) -> int:
    from fmtrain.schema.launch import Slurm
    from launch import driver
    from launch.compose import compose
    from launch.graph import build, pinned
    from launch.plan import plan

    root = compose(args.overrides)
    store = store_at(root.store)
    inside_job = "FMTRAIN_JOB" in os.environ
    if isinstance(root.launch, Slurm) and root.launch.dry_run and not inside_job:
        return _slurm(root, root.launch, store, args)
    with disk_errors(store.root):
        store.prepare()
        graph = build(root)
        steps = plan(graph, store)
    if isinstance(root.launch, Slurm) and not inside_job:
        args.overrides += pinned(graph)
        return _slurm(root, root.launch, store, args)
    run_id = os.environ.get("FMTRAIN_RUN") if inside_job else None
    run_id = run_id or driver.new_run_id()
    print(f"run {run_id}  recipe={root.recipe} launch={root.launch.name}  store {store.root}")
    for line in graph.left_out:
        print(f"  {line}")
    return driver.run(root, steps, store, run_id, args.overrides)


def _slurm(root: "Root", config: "Slurm", store: Store, args: argparse.Namespace) -> int:
    from launch import driver
    from launch.backends import slurm

    run_id = driver.new_run_id()
    folder = store.run_dir(run_id)
    words = [sys.executable, "-m", "launch.cli", "run", *args.overrides]
    if config.dry_run:
        print(slurm.render(config, folder, words), end="")
        return 0
    with disk_errors(store.root):
        folder.mkdir(parents=True)
        _record_queued(folder, root, args.overrides)
        try:
            job = slurm.submit(config, folder, words)
        except FmtrainError as e:
            shutil.rmtree(folder)
            script = f"The script is {folder / slurm.SCRIPT}"
            raise type(e)(str(e).replace(script, "launch.dry_run=true prints the script")) from None
        _note_job(folder, job)
    print(f"job {job}  run {run_id}")
    print(f"  output  {folder / f'slurm-{job}.out'}")
    print(f"  follow  fmtrain status {run_id} --store {shlex.quote(str(store.root))}", flush=True)
    return slurm.wait(job, folder / f"slurm-{job}.out") if args.wait else 0


def _record_queued(folder: Path, root: "Root", overrides: list[str]) -> None:
    """The run's state until the job begins and records its own; it may begin before sbatch has returned."""
    state = {
        **lease.owner(folder.name),
        "pid": None,
        "started": None,
        "recipe": root.recipe,
        "overrides": overrides,
        "launch": root.launch.name,
        "state": "queued",
        "stage": None,
        "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "notes": [],
    }
    write_json(folder / "run.json", state)


def _note_job(folder: Path, job: str) -> None:
    state = read_json(folder / "run.json")
    if state["state"] == "queued":
        write_json(folder / "run.json", {**state, "job": job, "notes": [f"slurm job {job}"]})


def _plan(args: argparse.Namespace) -> int:
    from launch.compose import compose
    from launch.graph import build
    from launch.plan import plan
    from launch.summary import plan_table

    root = compose(args.overrides)
    graph = build(root)
    print(plan_table(plan(graph, store_at(root.store))))
    for line in graph.left_out:
        print(line)
    return 0


def _status(args: argparse.Namespace) -> int:
    from launch import status

    store = store_at(args.store)
    found = status.runs(store, args.run)
    print(json.dumps(found, indent=1) if args.json else status.show(found, store, detailed=args.run is not None))
    return 0


def _logs(args: argparse.Namespace) -> int:
    from launch import status

    return status.logs(store_at(args.store), args.run, args.stage, args.rank, args.follow)


def _models(args: argparse.Namespace) -> int:
    store = store_at(args.store)
    found = [a for kind in ("published", "model") for a in store.artifacts(kind)]
    if args.json:
        print(json.dumps([_model_row(a) for a in found], indent=1))
    elif not found:
        print(f"no models in {store.root} yet; make one: fmtrain run recipe=quickstart")
    else:
        rows = [("model", "kind", "made", "from", "folder")]
        for a in found:
            parent = a.manifest.parents.get("model", {}).get("ref", "random weights")
            rows.append((a.ref, a.manifest.kind, a.manifest.created[:16], parent, os.path.relpath(a.path)))
        print(table(rows))
    return 0


def _model_row(artifact: Artifact) -> dict[str, object]:
    m = artifact.manifest
    return {
        "ref": artifact.ref, "kind": m.kind, "created": m.created, "path": str(artifact.path),
        "fingerprint": m.fingerprint, "parents": m.parents, "metrics": m.metrics, "counts": m.counts,
    }  # fmt: skip


def _generate(args: argparse.Namespace) -> int:
    """The model writes in a process of its own: this one never imports torch."""
    if args.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens={args.max_new_tokens}: 1 is the least")
    if not 0 <= args.temperature < math.inf:
        raise ConfigError(f"--temperature={args.temperature}: expected 0, which is greedy, or more")
    folder = Path(os.path.expanduser(args.model))
    if not (folder / "config.json").is_file():
        folder = store_at(args.store).get(args.model, "published", "model").path
    options = [f"--max-new-tokens={args.max_new_tokens}", f"--temperature={args.temperature}", f"--seed={args.seed}"]
    options += ["--raw"] if args.raw else []
    command = [sys.executable, "-m", "fmtrain.generate", *options, "--", str(folder), args.prompt]
    return subprocess.run(command).returncode


def _doctor(args: argparse.Namespace) -> int:
    from launch.doctor import check

    return check(store_at(args.store).root)


if __name__ == "__main__":
    sys.exit(main())
