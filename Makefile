# What a person or the CI runs. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= .demo
# A server that speaks the protocol of Azure Blob Storage.
AZURITE := azurite@3.37.0

# Nothing here may reach a model hub; the models come from packages.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
# Tokenizers that started threads must not be forked, and pytest-xdist and Dagster fork.
export TOKENIZERS_PARALLELISM := false
# uv does not read pip's setting; where pip is told of local wheels, uv has to know them too.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo dev test test-slow test-all lint format documents benchmarks constraints \
	clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## Make .venv with everything in it (nothing to do when it is up to date)

# Compiled at once: where Python may write no bytecode (PYTHONDONTWRITEBYTECODE, usual in containers)
# every process that loads the model would compile for 16 seconds.
$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ragassets needs Python 3.11 or newer and $(PYTHON) is older or missing." \
			"Name one: make install PYTHON=python3.11" >&2; exit 2; }
	@echo "Installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -m pip install -qq -c constraints.txt uv && \
		$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt \
			-e ".[dev]"; } || { \
		echo "uv could not do it; trying pip, which is slower ..." >&2; \
		$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"; }
	@touch $@
	@echo "Installed: $$($(BIN)/python --version), $$($(BIN)/uv pip list --python $(BIN)/python -q | wc -l) packages"

# What only tests need and PyPI has not; without it they say what they skip.
$(VENV)/npm/$(AZURITE): $(STAMP)
	@mkdir -p $(@D)
	@{ npm install --silent --no-audit --no-fund --prefix $(@D) $(AZURITE) && touch $@; } || \
		echo "Azurite was not installed (npm): tests against it will be skipped" >&2

demo: install ## Index a sample corpus, search it, edit a file, index again
	@PATH="$(CURDIR)/$(BIN):$$PATH" demo/demo.sh $(DEMO)

dev: install ## Start the Dagster UI on this folder
	@DAGSTER_HOME="$(CURDIR)" $(BIN)/dagster dev

test: install $(VENV)/npm/$(AZURITE) ## Run the fast tests
	@$(BIN)/python -m pytest -q -m "not slow"

test-slow: install $(VENV)/npm/$(AZURITE) ## Run the slow tests only
	@$(BIN)/python -m pytest -q -m slow

test-all: install $(VENV)/npm/$(AZURITE) ## Run every test, two files at a time
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: install ## Check style, format, types and layers
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/pyright --warnings
	@$(BIN)/lint-imports --no-cache > .lint-imports.log || { cat .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log
	@echo "Lint: style, format, types and layers are fine"

format: install ## Sort imports and format the code
	@$(BIN)/ruff check -q --fix . || true
	@$(BIN)/ruff format -q .

documents: install ## Parse the document corpus and write docs/documents.md
	@$(BIN)/python -m benchmarks.documents_report

benchmarks: install ## Measure, and write docs/benchmarks.md
	@$(BIN)/python benchmarks/run.py

constraints: install ## Write constraints.txt from what .venv holds
	@{ head -n 2 constraints.txt; \
		$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' \
			| grep -v '^ragassets==' | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(STAMP)
	@echo "constraints.txt: $$(grep -c == constraints.txt) packages"

clean: ## Remove what was made here, except .venv
	@rm -rf $(DEMO) .ragassets .dagster .pytest_cache .hypothesis .ruff_cache .import_linter_cache \
		build dist ./*.egg-info .tmp_dagster_home_*
