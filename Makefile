# Every target makes the environment that it needs, .venv-NAME, and makes it anew only when
# pyproject.toml has changed. PYTHON=... chooses the interpreter, ARGS=... goes to pytest, or to
# what else is run.

SOURCES := $(shell find src -name '*.py')
PYTHON_FILES := src tests examples docs tools $(wildcard benchmarks fuzz)
export PYTHON

.PHONY: help demo test interop coverage bench programs lint format types typing-env docs check clean

help:
	@echo 'make demo        store, find, move and get with real processes on this machine'
	@echo 'make test        every test; installs DCMTK, tshark, Orthanc where it may (ARGS="-k find -x")'
	@echo 'make interop     only the tests against other implementations'
	@echo 'make coverage    every test, and which lines and branches none has reached'
	@echo 'make bench       how fast, against DCMTK and pynetdicom        (ARGS="--quick --only echo")'
	@echo 'make lint        ruff, codespell, and the import contracts'
	@echo 'make format      let ruff correct what it can'
	@echo 'make types       mypy and pyright, both strict'
	@echo 'make typing-env  the package beside an installed trio-typing'
	@echo 'make docs        the documentation, into docs/_build/html'
	@echo 'make check       all of these'
	@echo 'make clean       remove what these have made'

# -- environments ----------------------------------------------------------------------------------

.venv-demo/.stamp: pyproject.toml tools/make-env $(SOURCES)
	@tools/make-env .venv-demo '.[all]'

.venv-test/.stamp: pyproject.toml tools/make-env
	@tools/make-env .venv-test --editable '.[all,transcode]' --group test

# as users install it: an editable one would start more slowly
.venv-bench/.stamp: pyproject.toml tools/make-env $(SOURCES)
	@tools/make-env .venv-bench '.[all]' --group bench

.venv-lint/.stamp: pyproject.toml tools/make-env
	@tools/make-env .venv-lint --group lint

# no trio-typing here: its stubs take the place of trio's own types
.venv-types/.stamp: pyproject.toml tools/make-env
	@tools/make-env .venv-types --editable '.[all]' --group types

.venv-typing/.stamp: pyproject.toml tools/make-env
	@tools/make-env .venv-typing --editable '.[all,transcode,typing]' --group test

.venv-docs/.stamp: pyproject.toml tools/make-env
	@tools/make-env .venv-docs --editable '.[all]' --group docs

# -- what users run --------------------------------------------------------------------------------

demo: .venv-demo/.stamp
	.venv-demo/bin/python tools/demo.py

test: .venv-test/.stamp programs
	.venv-test/bin/python -m pytest $(ARGS)

# -- what contributors run -------------------------------------------------------------------------

programs:
	@tools/install-programs

interop: .venv-test/.stamp programs
	.venv-test/bin/python -m pytest -m interop $(ARGS)

coverage: .venv-test/.stamp programs
	.venv-test/bin/python -m coverage run -m pytest $(ARGS)
	.venv-test/bin/python -m coverage report

bench: .venv-bench/.stamp programs
	.venv-bench/bin/python -m benchmarks $(ARGS)

lint: .venv-lint/.stamp
	.venv-lint/bin/python -m ruff check $(PYTHON_FILES)
	.venv-lint/bin/python -m ruff format --check $(PYTHON_FILES)
	.venv-lint/bin/python -m codespell_lib $(PYTHON_FILES) newsfragments *.md
	PYTHONPATH=src .venv-lint/bin/lint-imports
	.venv-lint/bin/python -m towncrier build --draft --version next >/dev/null

format: .venv-lint/.stamp
	.venv-lint/bin/python -m ruff check --fix $(PYTHON_FILES)
	.venv-lint/bin/python -m ruff format $(PYTHON_FILES)

types: .venv-types/.stamp
	.venv-types/bin/python -m mypy
	.venv-types/bin/python -m pyright --pythonpath .venv-types/bin/python
	.venv-types/bin/python tests/typing/check.py

typing-env: .venv-typing/.stamp
	.venv-typing/bin/python -c "import dimse_trio, trio_typing"
	.venv-typing/bin/python -m pytest tests/test_structure.py tests/test_examples.py $(ARGS)

docs: .venv-docs/.stamp
	.venv-docs/bin/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html
	.venv-docs/bin/python -m sphinx -n -W --keep-going -q -b doctest docs docs/_build/doctest

check: lint types docs demo typing-env test

clean:
	rm -rf .venv-demo .venv-test .venv-bench .venv-lint .venv-types .venv-typing .venv-docs
	rm -rf build dist docs/_build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache
	find src tests examples docs tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
