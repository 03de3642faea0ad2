# Podium. `make demo` and `make test` each need only make and Python >= 3.11 on a fresh machine.

VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= Which is larger by population, Germany or France?
PYTEST_ARGS ?=
# Many tests wait for processes, so that several share the processors; PYTEST_ARGS='-n 0' has
# them in one process.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

# The stamps say which set-up the virtual environment has; a newer pyproject.toml redoes it.
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-dev
# A virtual environment names its folder and its Python; moved, or with that Python gone, it is dead.
ALIVE := $(shell test "$$(cat $(VENV)/.made-in 2>/dev/null)" = "$(CURDIR)" \
	&& $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)

export QUESTION
.DEFAULT_GOAL := help
# The targets share one virtual environment: two installers at once would break it.
.NOTPARALLEL:
.PHONY: help demo test test-all check fix conductor clean always

help: ## Say what the targets do.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \2/p' Makefile | awk '{ printf "  make %-9s", $$2; $$1 = $$2 = ""; print }'

demo: $(BASE) ## Ask the shipped pool a question, with no key and no network.
	$(BIN)/podium run "$$QUESTION"

test: $(DEV) ## Run every test that is not marked slow.
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-all: $(DEV) ## Run every test.
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

check: $(DEV) ## Check format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(DEV) ## Mend what a program can mend: format, lint.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

conductor: $(DEV) ## Train the model that the package ships, and replace it unless the new one is worse.
	$(BIN)/python -m trainer.conductor.shipping --to actors/policies/conductor/model

clean: ## Remove what was built. Keeps .podium/, where the logs of your runs are.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BASE): pyproject.toml .ci/setup
	.ci/setup $(VENV) .
	@touch $@

ifneq ($(ALIVE),yes)
$(BASE) $(DEV): always
endif

$(DEV): pyproject.toml .ci/setup
	.ci/setup $(VENV) '.[dev]'
	@touch $(BASE) $@
