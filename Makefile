# What a person does with a checkout. All set-up is in here: .venv, and for the tests Debian packages.

.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
PYTHON := .venv/bin/python
TESTS := $(wildcard tests/unit tests/integration tests/notebook)
# For mypy, which refuses a folder that isn't there.
SOURCES := $(wildcard nscontainer magics/nscontainer_magics benchmarks tests tools)
SCRIPTS := .ci/run .ci/check-wheel tests/setup-debian tools/make-venv $(wildcard tests/vm/run tests/vm/setup*)
ARGS ?=

.PHONY: help demo test browser lab bench lint clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

demo: .venv/installed ## run the quickstart notebook for real; print its table, keep it and its plot
	@$(PYTHON) tools/demo.py

test: .venv/installed ## run the tests (ARGS="-k quota" picks some)
	@tests/setup-debian
	@mkdir -p build/test
	@$(PYTHON) -m pytest --junitxml=build/test/junit.xml $(TESTS) $(ARGS)

browser: .venv/installed-browser ## drive JupyterLab and Notebook by Chromium; screenshots in build/
	@tests/setup-debian browser
	@mkdir -p build/test
	@$(PYTHON) -m pytest --junitxml=build/test/junit-browser.xml tests/browser $(ARGS)

lab: .venv/installed ## open JupyterLab on the notebooks
	@$(PYTHON) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

bench: .venv/installed ## compare with crun, runc and Docker; check the limits' precision
	@tests/setup-debian
	@$(PYTHON) -m benchmarks $(ARGS)

lint: .venv/installed-dev ## check style, types and layers
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy $(SOURCES)
	@.venv/bin/lint-imports --no-logo
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); fi

clean: ## remove what make made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt tools/make-venv
	@tools/make-venv notebook,parquet,test
	@touch $@

.venv/installed-browser: .venv/installed
	@tools/make-venv notebook,parquet,test,browser
	@touch $@

# With the browser's, for the types that its tests use.
.venv/installed-dev: .venv/installed
	@tools/make-venv notebook,parquet,test,browser,dev
	@touch $@
