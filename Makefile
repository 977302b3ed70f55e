# `make` lists the targets. Everything is installed into .venv; nothing else on the machine changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two tests at a time. Test JVMs are young when they end: without the optimising compiler they take half the CPU.
IN_PARALLEL := -n 2 --dist worksteal
test integration spark property search browser: export JDK_JAVA_OPTIONS ?= -XX:TieredStopAtLevel=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit spark property search integration browser lock sbom secrets s3-server clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## install the locked packages and fetch the jars (once)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "1/3  making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "2/3  installing the locked packages (a minute, once)"
	@sed -n '/^uv==/,/^    # via/p' requirements.lock > $(VENV)/uv.lock
	@$(PIP) --require-hashes --no-deps -r $(VENV)/uv.lock
	@# uv takes a quarter of pip's time; where a machine's packages come by pip's own configuration, pip gets them.
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock 2>$(VENV)/uv.log || \
	  $(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@echo "3/3  Java, and the jars for Spark and Kafka (a minute, once)"
	@$(BIN)/python scripts/ensure_java.py
	@$(BIN)/lakehouse setup
	@touch $@

demo: setup ## the whole thing on this machine; ARGS="--seconds 60 --rate 2000 --no-browser"
	@exec $(BIN)/lakehouse demo $(ARGS)

# One run for what needs no broker: Python and Spark start once for all of it, and no process idles between its parts.
test: setup lint ## everything that CI runs
	$(BIN)/pytest tests/unit tests/spark tests/property $(IN_PARALLEL) $(PYTEST_ARGS)
	$(MAKE) integration browser

lint: setup ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## tests without a JVM
	$(BIN)/pytest tests/unit $(IN_PARALLEL) $(PYTEST_ARGS)

spark: setup ## transformations and rules on a local Spark
	$(BIN)/pytest tests/spark $(IN_PARALLEL) $(PYTEST_ARGS)

property: setup ## generated data: judging, splitting, merging
	$(BIN)/pytest tests/property $(IN_PARALLEL) $(PYTEST_ARGS)

search: setup ## property tests on examples not seen before, 5 times as many (TIMES=20)
	MORE_EXAMPLES=$(or $(TIMES),5) $(BIN)/pytest tests/property $(IN_PARALLEL) --hypothesis-profile=search --timeout=0 $(PYTEST_ARGS)

integration: setup ## the pipeline on a real broker
	$(BIN)/pytest tests/integration -n 2 --dist load --maxschedchunk 1 $(PYTEST_ARGS)

browser: setup ## the dashboard in headless Chromium (skipped where there is none)
	$(BIN)/pytest tests/browser $(PYTEST_ARGS)

# What `make lock` asks of uv. The image installs the same versions without what only tests and linters need.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

lock: ## resolve the dependencies anew into requirements.lock and, for images, requirements-runtime.lock
	$(LOCK) --group dev pyproject.toml -o requirements.lock
	$(LOCK) --constraint requirements.lock pyproject.toml -o requirements-runtime.lock

sbom: setup ## bill of materials of the image (dist/lakehouse.cdx.json), and a check of its licences
	@mkdir -p dist
	$(BIN)/python -m scripts.sbom > dist/lakehouse.cdx.json

secrets: ## passwords and keys of docker-compose.yml, once, as files under deploy/secrets
	@$(PYTHON) scripts/make_secrets.py

s3-server: setup ## build a real S3 server for the tests from its Go module (needs Go)
	GOBIN=$(abspath $(BIN)) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

clean: ## remove the environment and the demo's data
	rm -rf $(VENV) data build dist
