# Everything runs through .venv/bin/python -m: scripts in .venv/bin break where the checkout's path has a space.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

python := .venv/bin/python
pytest := $(python) -m pytest
SLOW ?= slow

.PHONY: help setup engine demo check test test-slow bench bench-peers lock clean

help: ## show this
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make .venv from the lock (PYTHON=... chooses the interpreter)
	@PYTHON="$(PYTHON)" .ci/setup

engine: ## make sure that a container engine answers
	@.ci/engine

demo: setup engine ## record a run, replay it, change a package, see what moved
	@examples/demo

check: setup ## format, lint, types, and the tests that need no engine
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	$(pytest) -q -n auto -m "not engine and not network and not slow"

test: setup engine ## all tests but the slow ones
	$(pytest) -q -n 4 -m "not slow" # the engine waits as much as it works

test-slow: setup engine ## the long corpora (SLOW='slow and not corpus' leaves out those that get real packages)
	-@$(python) -m pip install --quiet --no-deps --only-binary :all: --require-hashes -r .ci/fuzz.txt
	$(pytest) -q -n 2 -m "$(SLOW)"

bench: setup engine ## what a run costs against the bare container, side by side
	$(python) -m compileall -q runner # as an installed tool has it
	$(python) -m tests.bench

bench-peers: setup engine ## what other tools that are installed cost on the same job (tests/bench/peers.py says how)
	$(python) -m tests.bench peers

lock: setup ## pin what development needs, anew
	CUSTOM_COMPILE_COMMAND="make lock" $(python) -m piptools compile --quiet --upgrade --generate-hashes \
	    --extra dev --all-build-deps --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --output-file .ci/requirements.txt pyproject.toml

clean: ## remove what was made here; stores of your own workspaces stay
	chmod -R u+w .demo 2>/dev/null || true
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find runner tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
