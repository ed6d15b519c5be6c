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
if [ "$TORCH" = existing ] && ! "$VENV/bin/python" -c 'import torch'; then
    echo "TORCH=existing, and $VENV, made from $PYTHON, cannot import its torch (the reason is above). If $VENV was made" \
        "with another TORCH, remove it first: make clean" >&2
    exit 2
fi
pip=("$VENV/bin/python" -m pip install --disable-pip-version-check -q)
torch=$(grep '^torch==' constraints.txt)
again=() # another TORCH than last time: its build has the same version, which pip alone would keep
for stamp in "$VENV"/.installed-*; do
    [ ! -f "$stamp" ] || [ "$(cat "$stamp")" = "$TORCH" ] || again=(--force-reinstall)
done
case $TORCH in
existing) ;;
default) "${pip[@]}" "${again[@]}" "$torch" ;;
*) "${pip[@]}" "${again[@]}" --index-url "$TORCH" "$torch" ;;
esac
"${pip[@]}" -c "$constraints" setuptools wheel
"${pip[@]}" -c "$constraints" -e '.[dev]'
