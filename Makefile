# Needs make and Python 3.11 or newer; everything else goes into .venv, at the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# Threads that wait for one another on a busy machine cost more than they bring: ten times, measured with the demo.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := SCIPY_ARRAY_API=1 $(ONE_THREAD) $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
PAGES := README.md CONTRIBUTING.md doc/*.md doc/guide/*.md doc/methods/*.md doc/methods/algorithms/*.md

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-oldest lint dist bench report doc clean
.DELETE_ON_ERROR:

help: ## print this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile | expand -t 16

demo: $(VENV)/.installed-demo ## compare with scikit-learn on real data, write demo/index.html
	$(ONE_THREAD) $(BIN)/python examples/quickstart.py

test: lint ## lint, then run the fast tests and the examples of docstrings and pages
	$(PYTEST) -m "not slow" --doctest-modules --doctest-glob '*.md' tests sklowrank $(PAGES)

test-slow: $(VENV)/.installed-test ## run the slow ones: hostile inputs, rows beyond memory, Dask, type checkers
	$(PYTEST) -m slow tests

test-all: test test-slow ## both

test-oldest: $(OLDEST)/.installed ## a short part of the tests at the oldest versions that pyproject.toml allows
	SCIPY_ARRAY_API=1 $(ONE_THREAD) $(OLDEST)/bin/python -m pytest -q -m "not slow" tests/_core tests/_math \
		tests/test_package.py tests/test_common.py tests/test_tensors.py

lint: $(VENV)/.installed-test ## check style, format, and the types of the private shared code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(VENV)/.installed-test ## build wheel and sdist, install each into a fresh environment, use it there
	$(ONE_THREAD) $(BIN)/python .ci/dist.py

bench: $(VENV)/.installed-bench ## measure against the peers, render doc/benchmarks (data: SKLOWRANK_DATA)
	$(BIN)/python -m benchmarks

report: $(VENV)/.installed-test ## measure checks, hostile inputs, deviations and coverage, write doc/quality.md
	$(BIN)/python -m benchmarks.quality

doc: $(VENV)/.installed-doc $(VENV)/.installed-test ## build the site in doc/_build/html, without network, and look at it
	$(BIN)/sphinx-build -W --keep-going -b html doc doc/_build/html
	$(BIN)/python -m pytest -q -rs tests/test_site.py

clean: ## remove everything generated except the environments
	rm -rf build dist demo doc/_build doc/api doc/gallery doc/sg_execution_times.rst benchmarks/results
	rm -rf .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov sklowrank.egg-info
	find . -path './$(VENV)*' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# Set-up. A stamp per extra: nothing is installed twice until pyproject.toml or constraints.txt change.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "sklowrank needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No venv: install Python's venv package first."; exit 1; }

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sklowrank[$*] into $(VENV); the first time this takes some minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

# An environment of its own. What only the tests need comes in the newest version that goes with the old ones.
$(OLDEST)/.installed: pyproject.toml .ci/oldest.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(PYTHON) .ci/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/oldest.txt -e '.[test]'
	@touch $@
