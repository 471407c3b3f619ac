# Everything a developer does, by name. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test check lint types format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.complete ## the environment, from the hashed lock (6 GB, once)

.venv/.complete: .ci/requirements.txt pyproject.toml
	@PYTHON=$(PYTHON) bash .ci/setup

lock: | .bootstrap/bin/uv ## make the hashed lock anew
	.bootstrap/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --extra dev -o .ci/requirements.txt
