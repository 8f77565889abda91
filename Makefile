# The only commands a person or CI needs. Everything runs inside $(VENV), built from the locks below.
PYTHON ?= python3
# Another interpreter gets a folder of its own: `make PYTHON=python3.12 test` leaves .venv alone.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Twice quiet: without progress and notices, errors still show.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test check bench lock

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z.]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## Run an analysis in this terminal and watch it, broken connection included
	@$(BIN)/phaseline demo

up: $(VENV)/.runtime ## Run everything in one process, with no servers, and keep its data
	@$(BIN)/phaseline up

# Two processes, each with servers of its own: the tests wait more than they compute.
test: $(VENV)/.dev ## Run the tests against private PostgreSQL and RabbitMQ servers; ARGS="-k name" narrows
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

# The checks are independent, so they run side by side; --output-sync keeps each one's lines together.
check: $(VENV)/.dev ## Lint, format, types and import rules, in under half a minute
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

bench: $(VENV)/.dev ## Measure, and print the figures with the machine they are for
	@$(BIN)/python -m benchmarks $(ARGS)

# Not overwritten: PostgreSQL and RabbitMQ keep the password of their first start. Hexadecimal, as it stands in URLs.
.env: ## Draw the passwords compose.yaml asks for, once
	@umask 077 && $(PYTHON) -c "import secrets; \
		print(*(f'{name}_PASSWORD={secrets.token_hex(16)}' for name in ('POSTGRES', 'RABBITMQ')), sep='\n')" > $@

# uv resolves for every supported Python at once; it is needed here only, never to install.
lock: ## Resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --group build $(LOCK) --output-file requirements.lock
	grep '^[a-z].*==' requirements.lock | sed 's/ \\$$//' > build-constraints.tmp
	uv pip compile pyproject.toml --group build --group dev $(LOCK) \
		--constraints build-constraints.tmp --output-file requirements-dev.lock
	rm build-constraints.tmp
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)

# Stamps. The editable install is done without its own build environment: setuptools is in the lock.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Not compiled ahead: that costs more than the modules a run imports.
$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) install --no-compile --require-hashes --requirement requirements-dev.lock
	@touch $@
