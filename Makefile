# The commands of this project; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DATA := .mindvibe

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults check bench format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## build .venv with everything (skipped when nothing changed)

# The mark is made last, so that a set-up that broke off is done again.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup ## the main job on an embedded database; stays up until Ctrl-C
	@$(BIN)/python -m demo

test: setup ## every test on real sockets, those of the database on each PostgreSQL found (15 to 18)
	$(BIN)/python -m pytest -n auto --majors all

faults: setup ## half an hour of faults under load, from a printed seed (MINUTES=…, SEED=…)
	@$(BIN)/python -m tests.faults.run --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

check: setup ## lint, formatting, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench-ready ## measure beside others; ARGS=--quick takes three to four minutes
	$(BIN)/python -m bench $(ARGS)

$(VENV)/.bench-ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

format: setup ## format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Where the database's account cannot reach this directory, its data is where the link `elsewhere` leads.
clean: ## remove the environment, caches, and the data of embedded databases
	@for link in $(DATA)/elsewhere $(DATA)/demo/elsewhere; do \
		if [ -L "$$link" ]; then rm -rf "$$(readlink "$$link")"; fi; \
	done
	rm -rf $(VENV) $(DATA) .bench .mypy_cache .ruff_cache .hypothesis .import_linter_cache
