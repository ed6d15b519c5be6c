"""The command line: fmtrain run, plan, recipes, status, logs, models, verify, corpus, generate, doctor,
completion.

Parses, dispatches to launch/verbs, and turns every failure into one message and its exit code. Answers --help, plan and
a rejected configuration without importing torch, ray, deepspeed or datatrove.
"""

import argparse
import sys
import traceback

from fmtrain import show
from fmtrain.errors import ExitCode, FmtrainError
from launch.verbs import completion, corpus, doctor, generate, models, options, run, status, verify
from launch.verbs.parser import Parser

_VERBS = (run, options, status, models, verify, generate, corpus, doctor, completion)  # in the order that --help shows


@show.terminal()
def main(argv: list[str] | None = None) -> int:
    """Parse, dispatch, and turn every failure into one message and its exit code."""
    only_reads = True
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)
        only_reads = bool(args.only_reads)
        code = int(args.function(args))
        sys.stdout.flush()
        return show.unheard() if only_reads and code == ExitCode.DONE else code
    except SystemExit as e:  # of argparse: --help, or words that it refuses
        sys.stdout.flush()
        return show.unheard() or int(e.code or 0)
    except FmtrainError as e:
        print(f"error: {e}", file=sys.stderr)
        return int(e.exit_code)
    except BrokenPipeError:
        show.nobody_listens()
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
    parser = Parser(prog="fmtrain", description="From raw text to an aligned, versioned model.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in _VERBS:
        module.add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
