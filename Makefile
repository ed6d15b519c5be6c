# make quickstart   set up .venv and run the recipe `quickstart` on this machine
# make test         set up .venv and run the tests;  make test-long  the long ones;  make lint  ruff and mypy
# make install TORCH=default            the pinned torch from pip's index (on Linux with its CUDA libraries)
#              TORCH=existing           the torch that $(PYTHON) already has is kept
#              TORCH=https://...        the pinned torch from that index, e.g. a CPU or another CUDA build's
PYTHON ?= python3
TORCH ?= default
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test test-long lint format clean
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt Makefile
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" VENV="$(VENV)" bash install.sh
	touch $@

quickstart: install
	$(BIN)/fmtrain run recipe=quickstart

test: install
	$(BIN)/python -m pytest -m "not long"

test-long: install
	$(BIN)/python -m pytest -m long

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
