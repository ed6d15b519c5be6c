"""`make golden`, or `python -m tests.golden`: make the golden run anew and write what came of it into golden.yaml.

Refuses to write over an output that changed though its kind's revision, what it was given and the libraries did not.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.golden import golden, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    text = "renew what differs under other versions of libraries than golden.yaml names; nothing of ours changed"
    parser.add_argument("--libraries", action="store_true", help=text)
    libraries = parser.parse_args().libraries
    with tempfile.TemporaryDirectory() as folder, run.forks() as forks:
        now = golden.entries(run.make(Path(folder), forks).values())
    found, said = golden.renewed(golden.read(), now, libraries)
    for line in said:
        print(line, file=sys.stderr)
    if found is None:
        print(
            f"{golden.FILE.name} stays as it was. Where only libraries differ, renew in a commit that changes nothing "
            "else: python -m tests.golden --libraries",
            file=sys.stderr,
        )
        return 1
    golden.write(found)
    print(f"{golden.FILE}: {len(found)} stages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
