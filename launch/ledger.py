"""The ledger of stage sources: `ledger.txt`, a line `STAGE rREVISION HASH [same output: REASON]`, newest last.

When the source that a kind of stage imports changes, either its output may change (raise its revision in fmtrain/kinds)
or it does not (say why here). `python -m launch.ledger` lists what is missing; `--same-output REASON` writes the lines.
"""

import argparse
import sys
from pathlib import Path

from fmtrain.kinds.table import KINDS
from launch.plan import code_of

FILE = Path(__file__).with_name("ledger.txt")


def missing(text: str) -> list[str]:
    """The stages whose present revision and source have no line, each as `STAGE rREVISION HASH`."""
    known = {tuple(line.split()[:3]) for line in text.splitlines() if line.strip() and not line.startswith("#")}
    lines = [(name, f"r{kind.revision}", code_of(kind)) for name, kind in KINDS.items()]
    return [" ".join(line) for line in lines if line not in known]


def unreasoned(text: str) -> list[str]:
    """Lines after a revision's first that give no reason."""
    seen: set[tuple[str, ...]] = set()
    bad = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key = tuple(line.split()[:2])
        if key in seen and "same output: " not in line:
            bad.append(line)
        seen.add(key)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--same-output", metavar="REASON", help="write the missing lines with this reason")
    reason = parser.parse_args().same_output
    text = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
    absent = missing(text)
    if not absent:
        return 0
    if reason is None:
        print("\n".join(absent))
        print("Raise the kind's revision in fmtrain/kinds, or give --same-output REASON.", file=sys.stderr)
        return 1
    revisions = {tuple(line.split()[:2]) for line in text.splitlines()}
    lines = [line if tuple(line.split()[:2]) not in revisions else f"{line} same output: {reason}" for line in absent]
    FILE.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
