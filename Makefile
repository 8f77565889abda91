# The only commands a person or CI needs. Everything runs inside $(VENV), built from the locks below.
PYTHON ?= python3
# Another interpreter gets a folder of its own: `make PYTHON=python3.12 test` leaves .venv alone.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Twice quiet: without progress and notices, errors still show.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# pip compiles one file after the other, most of which nobody imports: what a server imports is compiled below on all
# cores, the rest by who imports it first.
INSTALL := $(PIP) install --no-compile --require-hashes --requirement
# A run of the tests starts hundreds of Python processes. Without bytecode each compiles all it imports: twice the time.
unexport PYTHONDONTWRITEBYTECODE
# Two processes, each with servers of its own: the tests wait more than they compute. Files in the order tests/conftest.py says.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test test-all tutorial soak sim repeat check screenshots bench advisories lock

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## Run an analysis in this terminal and watch it, broken connection included
	@$(BIN)/phaseline demo

up: $(VENV)/.runtime ## Run everything in one process, with no servers, and keep its data
	@$(BIN)/phaseline up

test: $(VENV)/.dev ## Run the tests against private PostgreSQL and RabbitMQ servers; ARGS="-k name" narrows
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(VENV)/.dev ## Run the slow tests too: long outages, large jobs, many kills
	@$(PYTEST) $(ARGS)

tutorial: $(VENV)/.dev ## Do what docs/tutorial.md says, in a clean clone, with a browser; prints how long it took
	@$(BIN)/python -m tests.tutorial

soak: $(VENV)/.dev ## Break everything at random: MINUTES=1 SEED=<drawn>; then hold the run against every promise
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),1) $(if $(SEED),--seed $(SEED))

# The checks are independent, so they run side by side; --output-sync keeps each one's lines together.
check: $(VENV)/.dev ## Lint, format, types and import rules
	@$(MAKE) --no-print-directory --jobs 4 --keep-going --output-sync=target VENV=$(VENV) \
		check-lint check-format check-types check-imports

.PHONY: check-lint check-format check-types check-imports
check-types:
	@$(BIN)/mypy
check-lint:
	@$(BIN)/ruff check --quiet
check-format:
	@$(BIN)/ruff format --check --quiet || { echo 'format with: $(BIN)/ruff format'; exit 1; }
check-imports:
	@$(BIN)/lint-imports --no-logo

# One seed is one run, down to the last step, as long as Python and the locked packages stay the same.
SEEDS ?= 500
sim: $(VENV)/.dev ## Simulate whole installations whose parts die: SEEDS=500, or SEED=7 for one with its schedule
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) $(ARGS))

# What kills, freezes and simulates; ends at the first run that fails.
repeat: $(VENV)/.dev ## Run the tests that break things again and again: TIMES=30
	@for n in $$(seq $(or $(TIMES),30)); do \
		$(PYTEST) --quiet -m 'not slow' tests/faults tests/soak tests/simulation || exit 1; \
		echo "$$n of $(or $(TIMES),30) passed"; \
	done

# Of a Phaseline that runs, such as `make up`.
screenshots: $(VENV)/.dev ## Picture each page, wide and narrow, light and dark: URL=http://127.0.0.1:8000 OUT=.data/screenshots
	@$(BIN)/python -m tests.browser.screenshots --url $(or $(URL),http://127.0.0.1:8000) --out $(or $(OUT),.data/screenshots)

bench: $(VENV)/.dev peers ## Measure beside peers and floors: QUICK=1 in minutes, ROWS="noop fivephase", ARGS=--missing
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS) $(ROWS)

# Optional: a peer that cannot be installed is a line in the table that says so. Nothing of ours needs them.
.PHONY: peers
peers: $(VENV)/.dev
	@$(MAKE) --no-print-directory $(VENV)-peers/.peers || echo 'bench: without the peers written in Python' >&2
	@$(MAKE) --no-print-directory benchmarks/peers/node_modules || echo 'bench: without the peers on node' >&2

$(VENV)-peers/.peers: benchmarks/peers/requirements.lock
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip -qq --disable-pip-version-check install --require-hashes --requirement $<
	@touch $@

benchmarks/peers/node_modules: benchmarks/peers/package.json
	npm install --prefix benchmarks/peers --no-package-lock --no-audit --no-fund --silent
	@touch $@

# Not overwritten: PostgreSQL and RabbitMQ keep the password of their first start. Hexadecimal, as it stands in URLs.
.env: ## Draw the passwords compose.yaml asks for, once
	@umask 077 && $(PYTHON) -c "import secrets; \
		print(*(f'{name}_PASSWORD={secrets.token_hex(16)}' for name in ('POSTGRES', 'POSTGRES_APP', 'RABBITMQ')), sep='\n')" > $@

# --strict: what could not be looked up is an error, not a line among others. A DATABASE is a clone of pypa/advisory-database.
advisories: $(VENV)-advisories/.installed $(if $(DATABASE),$(VENV)/.dev) ## Hold every locked package against known vulnerabilities: asks PyPI, or DATABASE=folder
	@for lock in requirements.lock requirements-dev.lock requirements-advisories.lock; do echo "$$lock:"; \
		$(if $(DATABASE),$(BIN)/python -m tests.advisories "$(DATABASE)") $(VENV)-advisories/bin/pip-audit --strict --disable-pip --require-hashes --requirement $$lock || exit 1; \
	done

$(VENV)-advisories/.installed: requirements-advisories.lock
	$(PYTHON) -m venv $(VENV)-advisories
	$(VENV)-advisories/bin/python -m pip -qq --disable-pip-version-check install --require-hashes --requirement $<
	@touch $@

# uv resolves for every supported Python at once; it is needed here only, never to install.
lock: ## Resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --group build $(LOCK) --output-file requirements.lock
	grep '^[a-z].*==' requirements.lock | sed 's/ \\$$//' > build-constraints.tmp
	uv pip compile pyproject.toml --group build --group dev $(LOCK) \
		--constraints build-constraints.tmp --output-file requirements-dev.lock
	rm build-constraints.tmp
	uv pip compile --group advisories $(LOCK) --output-file requirements-advisories.lock
	uv pip compile benchmarks/peers/requirements.in $(LOCK) --output-file benchmarks/peers/requirements.lock
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)

# Stamps. The editable install is done without its own build environment: setuptools is in the lock.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib/python*/site-packages || true
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(INSTALL) requirements-dev.lock
	@touch $@
