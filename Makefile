# Everything a developer does, by name. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
CODE := streaming feature_store pipelines platform tests examples benchmarks helm/generate
# Where the results of a test run are kept, for the table of `.ci/run`.
RESULTS := .tidemill/ci

# Where the programs of the control plane that tests run on are, or are built.
CLUSTER_PROGRAMS ?= .bootstrap/cluster

# Suites that start a whole loop or control plane have the machine to themselves, and end it before the next begins.
ALONE := cluster dashboard examples

# Tests wait for servers more than they work: two files of them at once.
TWO_AT_ONCE := $(BIN)/python -m pytest -q -n 2 --dist loadfile

# Of bench, faults and simulate: one of their names (all where it is empty), and how much of it.
ONLY ?=
SIZE ?= small

.PHONY: help setup demo test check $(ALONE:%=slow-%) slow-others cluster test-cluster test-ui images manifests spark peers bench faults simulate lint types format unit lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{split($$1, name, ":"); printf "  make %-12s %s\n", name[1], $$2}'

setup: .venv/.complete ## the environment, from the hashed lock (6 GB, once)

.venv/.complete: .ci/requirements.txt pyproject.toml
	@PYTHON=$(PYTHON) bash .ci/setup

demo: setup ## the whole loop on this machine, in under four minutes
	@$(BIN)/tidemill demo

test: setup lint types unit ## lint, types, import contracts, unit and integration tests (under 10 minutes)

check: setup ## what takes minutes rather than seconds (40 minutes)
	@if command -v go >/dev/null; then timeout 900 $(MAKE) --no-print-directory cluster \
	  || echo "no control plane within 15 minutes: tests/cluster are skipped" >&2; fi
	@$(MAKE) --no-print-directory --keep-going $(ALONE:%=slow-%) slow-others

$(ALONE:%=slow-%): slow-%: setup
	@mkdir -p $(RESULTS)
	$(BIN)/python -m pytest -q -m slow tests/$* --junitxml=$(RESULTS)/$*.xml

slow-others: setup
	@mkdir -p $(RESULTS)
	$(TWO_AT_ONCE) -m slow $(ALONE:%=--ignore=tests/%) --junitxml=$(RESULTS)/others.xml

test-ui: slow-dashboard ## the dashboard in a real browser against a live loop (part of check)

cluster: ## a Kubernetes control plane with KServe's controller, built from Go modules (Go 1.26; 10 minutes, once)
	@$(PYTHON) .ci/cluster/build.py $(CLUSTER_PROGRAMS)

test-cluster: setup cluster ## what runs on a real API server
	@mkdir -p $(RESULTS)
	$(BIN)/python -m pytest -q tests/cluster --junitxml=$(RESULTS)/cluster.xml

spark: setup ## the same history on Spark, row for row; installs pyspark (450 MB) into .venv, and needs a Java 17
	.bootstrap/bin/uv pip install --quiet --python $(BIN)/python "pyspark==4.2.0"
	$(BIN)/python -m pytest -q tests/features/test_spark.py

peers: setup ## Evidently and NannyML in .peers (1.5 GB), which `make bench ONLY=drift` compares with
	[ -x .peers/bin/python ] || .bootstrap/bin/uv venv --quiet --python $(BIN)/python .peers
	.bootstrap/bin/uv pip install --quiet --python .peers/bin/python "evidently==0.7.23" "nannyml==0.13.1" "pandas<3"

bench: setup ## how fast it is, beside its peers: ONLY=name SIZE=small|full
faults: setup ## whether it holds when things break: ONLY=name SIZE=small|full
simulate: setup ## whether the statistics keep their promises: ONLY=name SIZE=small|full
bench faults simulate:
	@$(BIN)/python -m benchmarks $@ $(if $(ONLY),--only $(ONLY)) --size $(SIZE)

images: setup ## what each image of the Dockerfile would hold, as an environment here; each command of it started (minutes)
	$(BIN)/python .ci/images.py

manifests: setup ## CRD, values schema, dashboards and plain manifests, made anew (the last of them with helm)
	$(BIN)/python -m helm.generate

lint: setup ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: setup ## mypy, strict
	$(BIN)/mypy $(CODE)

unit: setup
	@mkdir -p $(RESULTS)
	$(TWO_AT_ONCE) -m "not slow" --junitxml=$(RESULTS)/test.xml

format: setup ## rewrite the code as ruff would
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: | .bootstrap/bin/uv ## make the hashed lock anew
	.bootstrap/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate pyproject.toml --extra dev -o .ci/requirements.txt

.bootstrap/bin/uv: .venv/.complete

clean: ## end what runs, and remove what it kept and what was built (the environment stays)
	@if [ -x $(BIN)/tidemill ]; then $(BIN)/tidemill down; fi
	rm -rf .tidemill .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
