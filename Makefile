# `make` or `make help` lists what there is. Only Python 3.11-3.13, git and make are needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LABEL_STUDIO := label-studio==1.23.2
VENV := .venv
VENV_LABEL_STUDIO := .venv-label-studio
# 1.0.9 declares neither of the last two and does not import without them
TOOLKIT := label-studio-ml==1.0.9 redis==8.1.0 rq==2.12.0
VENV_TOOLKIT := .venv-toolkit
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --no-input

# the first Python that fits; with pyenv, python3.13 can exist and not run
ifndef PYTHON
PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" tools/preflight.py --python-only >/dev/null 2>&1 && { echo "$$python"; break; }; done)
endif

TESTS ?= tests
SMALL_TESTS := tests/unit tests/contracts tests/http
LARGE_TESTS := tests/e2e tests/faults
PYTEST := $(BIN)/python -m pytest
NOT_EVERYWHERE := not slow and not gpu

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo demo-check
demo: $(VENV)/.installed $(VENV_LABEL_STUDIO)/.installed ## our backend and a real Label Studio with sample images
	@exec $(BIN)/python tools/demo.py $(DEMO)

demo-check: $(VENV)/.installed $(VENV_LABEL_STUDIO)/.installed ## the same without a person: is every task predicted?
	@exec $(BIN)/python tools/demo.py --check $(DEMO)

.PHONY: test test-quick test-long test-gpu
test: $(VENV)/.installed-tests $(VENV_LABEL_STUDIO)/.installed $(VENV_TOOLKIT)/.installed lint ## every test, with a real Label Studio and a real browser
	@tools/test_programs.sh
	$(PYTEST) -n auto $(SMALL_TESTS) -m "$(NOT_EVERYWHERE)"
	$(PYTEST) -n 2 --dist loadfile $(LARGE_TESTS) -m "$(NOT_EVERYWHERE)"

test-quick: lint ## style, types, floors, unit, contract and HTTP tests
	$(PYTEST) -n auto $(SMALL_TESTS) -m "$(NOT_EVERYWHERE) and not unhurried"

test-long: $(VENV)/.installed-tests $(VENV_LABEL_STUDIO)/.installed $(VENV_TOOLKIT)/.installed ## the tests that take minutes
	@tools/test_programs.sh
	$(PYTEST) $(TESTS) -m slow

test-gpu: $(VENV)/.installed-tests ## the tests that need a CUDA device
	$(PYTEST) $(TESTS) -m gpu

.PHONY: lint format
lint: $(VENV)/.installed-tests ## style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-tests ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: benchmarks
benchmarks: $(VENV)/.installed-tests ## measure speed and accuracy; what they print is kept in artifacts/
	@mkdir -p artifacts
	@set -o pipefail; for benchmark in rle conversion predict large infer latency accuracy classification; do \
		echo "== $$benchmark"; \
		$(BIN)/python benchmarks/$$benchmark.py | tee artifacts/benchmark-$$benchmark.txt || exit 1; \
	done

.PHONY: picture
picture: $(VENV)/.installed-tests $(VENV_LABEL_STUDIO)/.installed ## take the README's picture anew (needs Chromium)
	@exec $(BIN)/python tools/demo.py --picture docs/images/label-studio.png

.PHONY: clean
clean: ## remove the environments and everything made in them
	rm -rf $(VENV) $(VENV_LABEL_STUDIO) $(VENV_TOOLKIT) .demo artifacts build

# Environments, each made once and again when what it is made from changes

$(VENV)/.installed: pyproject.toml constraints.txt | python
	@$(PYTHON) tools/preflight.py --environment $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(BIN)/python $(PIP) install -e '.[test]' -c constraints.txt
	@touch $@

$(VENV_LABEL_STUDIO)/.installed: Makefile | python
	@$(PYTHON) tools/preflight.py --environment $(VENV_LABEL_STUDIO)
	@test -x $(VENV_LABEL_STUDIO)/bin/python || $(PYTHON) -m venv $(VENV_LABEL_STUDIO)
	$(VENV_LABEL_STUDIO)/bin/python $(PIP) install '$(LABEL_STUDIO)'
	@touch $@

# the Python of our own environment: a test puts both together. Our package goes in without what it
# needs, which is how people forward from a toolkit's environment.
$(VENV_TOOLKIT)/.installed: Makefile pyproject.toml | $(VENV)/.installed
	@test -x $(VENV_TOOLKIT)/bin/python || $(BIN)/python -m venv $(VENV_TOOLKIT)
	$(VENV_TOOLKIT)/bin/python $(PIP) install $(TOOLKIT)
	$(VENV_TOOLKIT)/bin/python $(PIP) install --no-deps -e .
	@touch $@

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 was found (with its venv module); install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
