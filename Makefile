# make demo | make test: each works in a fresh clone, with nothing installed by hand but Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0

# Two workers with a thread each: trials are small, and threads of one would wait for the other's.
# A file stays with one worker, so that studies its tests share are made once.
# A worker that a test which hangs takes with it is not replaced: the test would hang there too.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint lock clean

help:  ## show these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/make \1|\2/p' $(MAKEFILE_LIST) | \
	while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

install: $(STAMP)  ## fill .venv with the locked versions (PYTHON=python3.12 to choose another Python)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "PYTHON=$(PYTHON): expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1 | tail -1)." \
	    "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into $(VENV) (some minutes) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(STAMP)  ## compare an SVM with LoRA on the bundled reviews; writes runs/demo/report.html
	$(BIN)/tunelab compare --data demo --methods svm,lora --seeds 6 --tuning off --output-dir runs/demo

test: lint  ## lint, types, import doors, and every test that is not slow
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(STAMP)  ## the slow tests
	@# Exit 5 means that no test is marked slow, which is no failure.
	$(PYTEST) --no-loadscope-reorder --durations=15 -m "slow and not gpu" || { code=$$?; [ $$code -eq 5 ] && echo "No slow tests."; }

lint: $(STAMP)  ## ruff, formatting, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The network is not part of what is tested.
test test-slow: export HF_HUB_OFFLINE = 1
test test-slow: export OMP_NUM_THREADS = 1

# Torch is installed first, so that a plain build serves where one is offered. What belongs to one
# build of torch (its local version, the CUDA libraries it pins itself) stays out of the lock.
lock:  ## resolve pyproject.toml anew in a clean environment and write requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q --disable-pip-version-check $(TORCH)
	build/lock/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	build/lock/bin/python -m pip freeze --exclude-editable > build/freeze.txt
	{ echo "# Exact versions of all that make needs. Written by make lock; do not edit."; \
	  grep -ivE '^(#|nvidia-|cuda-|triton==)' build/freeze.txt | sed -E 's/\+[^ ;]*$$//' | LC_ALL=C sort -f; \
	} > build/requirements.lock
	@! grep -nE '@|://|^-' build/requirements.lock || { echo "not plain pins, see above" >&2; exit 1; }
	mv build/requirements.lock requirements.lock
	rm -rf build/lock build/freeze.txt

clean:  ## remove .venv, caches and build output; runs/ is kept
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
