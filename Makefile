# make reproduce | test | check | bench | wheel; each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
OUT := results/reproduce

.PHONY: reproduce test check lint bench wheel clean
.DELETE_ON_ERROR:

reproduce: .venv/installed
	$(BIN)/python -m empirical reproduce --out $(OUT)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

bench: .venv/installed
	$(BIN)/python -m sim bench --out results/bench.json
	$(BIN)/python -m empirical bench --out results/bench-empirical.json

# quick tests, lint, types, layers: about two minutes
check: lint
	$(BIN)/python -m pytest -n 2 -q -m "not slow" $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

wheel: .venv/installed
	$(BIN)/pip wheel -q --no-deps -w dist .

# The stamp is written last, so a half-finished installation is done again.
.venv/installed: pyproject.toml
	@echo "Installing into .venv (torch is large: some minutes the first time)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
