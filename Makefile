# Needs Python 3.11 or newer, make and a package index; everything else goes into .venv.
#   PORT=9000 make demo       serve on another port
#   PYTHON=python3.12 make    choose the interpreter

PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough and able to make an environment.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
# --no-compile: what is never imported is never compiled, which takes 8 s of 20 off the first install.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# Bytecode is what the second process of an environment starts from: without it each one that imports torch compiles
# torch anew, 8 s of a core, and the tests start many.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo bench test test-compose check format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/runtime ## Index Python's own documentation and serve it on http://localhost:8000
	@exec $(BIN)/dupmae demo --port $(PORT)

test: check ## Check, then run every test that this machine can run
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

bench: $(VENV)/bench ## Measure speed and memory: tables, JSON and a picture in bench/results; BENCH=--quick for 3 minutes
	@$(BIN)/python bench/suite.py $(BENCH)

test-compose: $(VENV)/dev ## Build the images and bring up the stack, with podman: needs root and minutes
	TEST_COMPOSE=1 $(BIN)/python -m pytest -s -m compose tests/deploy

check: $(VENV)/dev ## Format, lint, types and import rules, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: $(VENV)/dev ## Write down what the images install, after a change to pyproject.toml or constraints.txt
	@$(INSTALL) uv
	PATH="$(BIN):$$PATH" $(BIN)/python -m deploy.lock

clean: ## Remove the environment and caches; indexes in .dupmae stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv found; set PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what serving needs (once, about half a minute)"
	@$(INSTALL) --editable '.[cpu]'
	@touch $@

$(VENV)/bench: $(VENV)/runtime
	@echo "Installing what is measured beside, and what draws (once)"
	@$(INSTALL) --editable '.[cpu,bench]'
	@touch $@

# torch comes first and pinned: resolved together with the rest, a range takes the newest build for CUDA, several GB.
$(VENV)/dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch and the development tools (once, a few minutes)"
	@$(INSTALL) torch
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/runtime $@
