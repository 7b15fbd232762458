# make demo   set up, generate Scenes, train two networks, print a table
# make test   set up and run the tests
# make kernels   compile the CUDA kernels for every architecture
# make docs-check   run every command of README and docs
# ARGS=... are arguments of the demo, the tests or the check of the documents.
# TORCH=... are the words that pip gets for PyTorch, VENV=... the environment.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint kernels docs-check setup

demo: setup
	$(PY) tools/demo.py $(ARGS)

test: setup $(VENV)/.test
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/.test
	$(PY) -m ruff check .

kernels: setup
	$(PY) tools/check_kernels.py

docs-check: setup $(VENV)/.test
	$(PY) tools/docs_check.py $(ARGS)

setup: $(VENV)/.stack

$(VENV)/.stack: requirements/stack.txt requirements/libraries.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -r requirements/libraries.txt
	$(PIP) --no-deps -r requirements/stack.txt
	touch $@

$(VENV)/.test: requirements/test.txt | $(VENV)/.stack
	$(PIP) -r requirements/test.txt
	touch $@
