# Everything runs in a virtual environment of the project's own, made on first use:
# Python 3.11 or later, a C compiler and make are all that is needed.

PYTHON ?= python3
VENV ?= .venv
IN_VENV = $(VENV)/bin
SOURCES = core drivers plugins benchmarks tests

.DEFAULT_GOAL := help
.PHONY: help demo test check format benchmark clean

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/installed ## Show every driver at work on an image made of this machine's files
	@$(IN_VENV)/python -m cowshed_benchmarks.demo demo

test: $(VENV)/developing ## Run all tests; as root a second time as an ordinary user
	@$(IN_VENV)/python -m pytest -n 2 $(TESTS)
	@$(IN_VENV)/python tests/as_ordinary_user.py -n 2 $(TESTS)

check: $(VENV)/developing ## Lint, formatting, types, imports
	$(IN_VENV)/ruff check $(SOURCES)
	$(IN_VENV)/ruff format --check $(SOURCES)
	$(IN_VENV)/mypy
	$(IN_VENV)/pyright --pythonpath $(IN_VENV)/python
	$(IN_VENV)/lint-imports

format: $(VENV)/developing ## Format the code
	$(IN_VENV)/ruff format $(SOURCES)
	$(IN_VENV)/ruff check --fix $(SOURCES)

benchmark: $(VENV)/installed ## Measure against the targets: make benchmark IMAGE=oci:DIRECTORY
	@$(IN_VENV)/python -m cowshed_benchmarks.targets --image $(IMAGE)

clean: ## Remove what was made here
	rm -rf $(VENV) demo .cache

# A Debian python3 without python3-venv can still make an environment through its pip.
$(VENV)/made:
	@echo "Making a virtual environment in $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Cowshed needs Python 3.11 or later, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	    rm -rf $(VENV); \
	    $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --quiet --python $(IN_VENV)/python install pip; }
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	@echo "Installing Cowshed and what it needs …"
	@$(IN_VENV)/python -m pip --quiet --disable-pip-version-check install --editable .
	@touch $@

# Dependency groups are read by pip from 25.1 on.
$(VENV)/developing: $(VENV)/installed pyproject.toml
	@echo "Installing what the tests need …"
	@$(IN_VENV)/python -m pip --quiet --disable-pip-version-check install 'pip>=25.1'
	@$(IN_VENV)/python -m pip --quiet --disable-pip-version-check install --group dev
	@touch $@
