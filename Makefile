# The same commands in the README, in continuous integration and in your shell.
#   make demo          the whole path on this machine: RabbitMQ, engine, bridge, workers
#   make demo KEEP=1   the same, left running; `make down` ends it
#   make test          style, types and every test (what .ci/run calls)
#   make test-consumers  only the workers in other languages and stacks, with their table
#   make chaos         rounds of random faults; ROUNDS=5 TASKS=1000 SECONDS=120 SEED=1,
#                      DEFAULTS=1 for the times that a bridge has without settings
#   make bench         the figures, beside other clients; QUICK=1, ONLY=share,cpu, OUT=results.json
#   make screenshots   the pictures of the live page, in deploy/screenshots
#   make check         style and types only
#   make format        put the style right
#   make engines       build both process engines (once; the result is cached)
#   make lock          renew the pinned versions in deploy/requirements.lock
#   make clean         remove everything that was made here

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo down test test-consumers chaos bench screenshots check lint format system engines lock clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

$(STAMP): pyproject.toml deploy/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments. On Debian: sudo apt-get install -y python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "making the virtual environment .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing what pyproject.toml names"
	@$(BIN)/python -m pip install --quiet --constraint deploy/requirements.lock --editable '.[dev]'
	@touch $@

demo: venv
	@KEEP='$(KEEP)' $(BIN)/python -m deploy.local.demo

down: venv
	@$(BIN)/python -m deploy.local.demo down

test: venv system check
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile

# A part of `make test`; it builds what is new, with npm, Maven, Go and pip, into .cache/consumers.
test-consumers: venv system
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile tests/consumers

ROUNDS ?= 5
TASKS ?= 1000
SECONDS ?= 120
SEED ?= 1

# Each round takes SECONDS and what it needs to heal, at most some five minutes more; DEFAULTS=1, with
# the settings that the benchmarks measure, twelve.
chaos: venv system
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) --tasks $(TASKS) --seconds $(SECONDS) --seed $(SEED) $(if $(DEFAULTS),--default-times)

# Builds its peers with Go, Maven, npm and pip, into .cache/benchmarks; leave the machine alone while
# it runs. QUICK=1 takes less than five minutes, all of it about half an hour.
bench: venv system
	$(BIN)/python -m tests.benchmarks run --plan $(if $(QUICK),quick,whole) --only '$(ONLY)' $(if $(OUT),--out '$(OUT)')

screenshots: venv system
	$(BIN)/python -m tests.support.screenshots

check lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# As root it installs what the tests need of the system; without it, the tests that need it say so.
system: venv
	@$(BIN)/python -m deploy.local.system --install || true

engines: venv system
	@for kind in camunda operaton; do \
	  $(BIN)/python -c "from deploy.local.engine_build import build_engine; print(build_engine('$$kind'))" || exit 1; done

lock: venv
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --editable '.[dev]'
	.cache/lock/bin/python -m pip freeze --exclude-editable > .cache/requirements.lock
	mv .cache/requirements.lock deploy/requirements.lock
	rm -rf .cache/lock

# The demo first, or its processes would lose their files under their feet.
clean:
	@if [ -e .cache/demo ] && [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local.demo down; fi
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis deploy/engine/target dist
