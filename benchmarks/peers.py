"""What a benchmark needs beside fmtrain, asked for at its start: none dies half-way for want of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

# Modules of the extra `bench`; what else is imported is a dependency of ours.
PEERS = ("lingua", "phonenumbers", "presidio_analyzer", "py3langid", "rensa", "spacy", "tldextract")


def need(*modules: str, data: Path | None = None) -> None:
    """Leave with 2 and the remedy where one of the modules is not installed, or the data does not exist."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        _leave(f"{', '.join(absent)}: not installed in {sys.prefix}; pip install -c constraints.txt -e '.[bench]'")
    if data is not None and not data.exists():
        _leave(f"no data at {data}; the first lines of {Path(sys.argv[0]).name} say how it is given")


def need_elsewhere(python: str, module: str) -> None:
    """The same for a module in another environment, given by its Python."""
    try:
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    except OSError as e:
        _leave(f"{python} cannot be run: {e}")
    if done.returncode:
        _leave(f"{module}: not installed for {python}; the first lines of {Path(sys.argv[0]).name} say how it is")


def _leave(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(2)
