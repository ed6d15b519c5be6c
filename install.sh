#!/usr/bin/env bash
# Set up $VENV: torch first, then everything else under constraints.txt. Called by `make install`, which explains TORCH.
# pip's own settings (index, find-links, certificates) hold.
set -euo pipefail
VENV=${VENV:-.venv} PYTHON=${PYTHON:-python3} TORCH=${TORCH:-default}
"$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else
    f"fmtrain needs Python 3.11 or 3.12, and {sys.executable} is {v[0]}.{v[1]}; choose one: make install PYTHON=python3.11")'
constraints=constraints.txt
site=()
if [ "$TORCH" = existing ]; then
    have=$("$PYTHON" -c 'from importlib.metadata import version; print(version("torch"))') || {
        echo "TORCH=existing, and $PYTHON has no torch; use TORCH=default or TORCH=<index url>" >&2
        exit 2
    }
    site=(--system-site-packages)
    constraints=$VENV/constraints.txt
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "${site[@]}" "$VENV"
if [ "$TORCH" = existing ]; then
    { grep -v '^torch==' constraints.txt; echo "torch==$have"; } >"$constraints"
fi
pip=("$VENV/bin/python" -m pip install --disable-pip-version-check -q)
torch=$(grep '^torch==' constraints.txt)
case $TORCH in
existing) ;;
default) "${pip[@]}" "$torch" ;;
*) "${pip[@]}" --index-url "$TORCH" "$torch" ;;
esac
"${pip[@]}" -c "$constraints" setuptools wheel
"${pip[@]}" -c "$constraints" -e '.[dev]'
