# `make demo` and `make test` need git, make and a Python 3.10-3.13 with venv; everything else goes into .venv.
#
# PYTHON=/path/to/python chooses the interpreter; otherwise scripts/find_python.sh takes the newest that runs.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo cluster-demo test test-providers lint types docs format constraints clean

VENV := .venv
BIN := $(VENV)/bin

# Looked up once a call, and not at all by the targets that need no interpreter.
ifneq ($(filter-out help clean constraints,$(or $(MAKECMDGOALS),help)),)
  ifndef PYTHON
    PYTHON := $(shell sh scripts/find_python.sh)
  endif
  ifeq ($(strip $(PYTHON)),)
    $(error no usable Python found, see above)
  endif
  VERSION := $(shell sh scripts/find_python.sh --version "$(PYTHON)")
  ifeq ($(strip $(VERSION)),)
    $(error PYTHON=$(PYTHON) is no working Python 3.10-3.13 with venv)
  endif
endif

CONSTRAINTS := constraints/$(VERSION).txt
# The version is in the name: another interpreter means another environment.
STAMP := $(VENV)/.installed-$(VERSION)

# Providers of other people's have needs of their own, which must not decide what the project is tested with.
PROVIDERS_VENV := .venv-providers
PROVIDERS_STAMP := $(PROVIDERS_VENV)/.installed-$(VERSION)
PROVIDERS := tests/providers/requirements.txt

help:
	@echo "make demo            run a few thousand circuits on Aer, with a live bar and a report"
	@echo "make cluster-demo    20,000 circuits on a head and two nodes, processes of this machine; one is killed on the way"
	@echo "make test            lint, types, then all tests and doctests"
	@echo "make test-providers  circuits on backends of other packages, in an environment of their own"
	@echo "make lint            ruff: rules and format"
	@echo "make types           mypy, strict"
	@echo "make docs            build the documentation into site/"
	@echo "make format          let ruff mend what it can"
	@echo "make constraints     pin today's releases for every supported Python"
	@echo "make clean           remove .venv, caches and builds"

# $(call install,environment,what pip installs there)
define install
	@echo "Setting up $(1) with $(PYTHON) ($(VERSION)): minutes the first time, then never again."
	@test -x $(1)/bin/python && test "$$(sh scripts/find_python.sh --version $(1)/bin/python)" = "$(VERSION)" \
		|| "$(PYTHON)" -m venv --clear $(1)
	@rm -f $(1)/.installed-*
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) $(2)
	@touch $@
endef

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(call install,$(VENV),--editable ".[dev]")

$(PROVIDERS_STAMP): pyproject.toml $(CONSTRAINTS) $(PROVIDERS)
	$(call install,$(PROVIDERS_VENV),--editable . hypothesis pytest pytest-timeout --requirement $(PROVIDERS))

demo: $(STAMP)
	$(BIN)/python examples/demo.py

cluster-demo: $(STAMP)
	$(BIN)/python -m examples.cluster_demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Material tells at every build of a MkDocs 2 that pyproject.toml excludes.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(STAMP)
	$(BIN)/mkdocs build --strict --clean

# Tests that start processes and Ray have the machine to themselves; the others share it, a file a process.
WITH_RAY := tests/ray tests/faults

test: export RAY_USAGE_STATS_ENABLED := 0
test: lint types
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(addprefix --ignore=,$(WITH_RAY))
	$(BIN)/python -m pytest $(WITH_RAY)

test-providers: $(PROVIDERS_STAMP)
	RAY_USAGE_STATS_ENABLED=0 $(PROVIDERS_VENV)/bin/python -m pytest tests/providers

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:
	sh scripts/constraints.sh

clean:
	rm -rf $(VENV) $(PROVIDERS_VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
