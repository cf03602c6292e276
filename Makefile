# Everything a developer does with this project. `make help` lists it.

PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= .data
ARGS ?=

VENV_PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run manage lint test bench clean

help: ## Show this list
	@echo 'Targets:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile
	@echo 'Variables:'
	@echo '  PORT      of the pages, the API is on the next one (now: $(PORT))'
	@echo '  DATA_DIR  where an instance keeps everything (now: $(DATA_DIR))'
	@echo '  PYTHON    3.11 or later (now: $(PYTHON))'
	@echo 'Own servers are used where DATABASE_URL, VALKEY_URL or CATALOG_FILE name them.'

run: ## Install, start everything, say when it is ready; Ctrl-C stops it (PORT=8000 DATA_DIR=.data)
	@$(PYTHON) devstack/install.py run
	@exec $(VENV_PYTHON) -m devstack run --parent $$PPID --port '$(PORT)' --data-dir '$(DATA_DIR)'

manage: ## Run a management command against an instance (ARGS='audit' DATA_DIR=.data)
	@$(PYTHON) devstack/install.py run
	@exec $(VENV_PYTHON) -m devstack manage --data-dir '$(DATA_DIR)' -- $(ARGS)

lint: ## Lint, types, import contracts, migrations
	@$(PYTHON) devstack/install.py dev
	@exec $(VENV_PYTHON) -m devstack.checks lint

test: ## Everything of lint, then all tests (ARGS='-k ledger' goes to pytest)
	@$(PYTHON) devstack/install.py dev
	@exec $(VENV_PYTHON) -m devstack.checks test $(ARGS)

bench: ## What a call costs, and whether the books are exact (ARGS='--quick', see docs/benchmarks.md)
	@$(PYTHON) devstack/install.py dev
	@exec $(VENV_PYTHON) -m benchmarks.run $(ARGS)

clean: ## Remove .venv and every cache; instances (DATA_DIR) stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .test_clusters staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
