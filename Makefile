# `make` lists the targets. PYTHON picks the interpreter: make install PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp makes the install run once, and again when what it depends on changes.
STAMP := $(VENV)/.installed
# Tests run in as many processes as there are processors; one that is idle takes from the others.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo app browser test lowest check format docs bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv with the package and everything the other targets need

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; run: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@echo "Compiling what fills wide holes for this processor, once"
	@$(BIN)/python -c 'from regionnorm.filling.completion.complete import warm_up; warm_up()' 2>/dev/null
	@touch $@

demo: $(STAMP)  ## fill holes in sample photos, into out/demo
	$(BIN)/python examples/demo.py

app: $(STAMP)  ## open the web app on http://127.0.0.1:7860
	$(BIN)/regionnorm app

browser: $(STAMP)
	@$(BIN)/python tests/web/browser.py

test: browser  ## run the tests, those of the web app in a browser that it gets if there is none
	$(PYTEST)

lowest: $(STAMP)  ## run the program with the lowest versions that pyproject.toml allows
	$(BIN)/python tests/lowest.py

check: browser  ## lint, format, types, import rules and tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(PYTEST)

format: $(STAMP)  ## let ruff fix and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)  ## build the documentation, into out/site
	$(BIN)/mkdocs build --strict

bench: $(STAMP)  ## run every benchmark
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

clean:  ## remove what the other targets made
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
