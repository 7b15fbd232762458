# make demo   set up, generate Scenes, train two networks, print a table
# make test   set up and run the tests
# make kernels   compile the CUDA kernels for every architecture
# make mim-check   every mim command on every kind of install, in a new environment
# TORCH=... are the words that pip gets for PyTorch, VENV=... the environment.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
MIM ?= openmim==0.3.9
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint kernels mim-check setup

demo: setup
	$(PY) tools/demo.py

test: setup $(VENV)/.test
	$(PY) -m pytest

lint: $(VENV)/.test
	$(PY) -m ruff check .

kernels: setup
	$(PY) tools/check_kernels.py

# openmim's own requirements would replace some of the stack's; see mim.txt.
mim-check:
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(MAKE) setup VENV="$$folder" && \
	"$$folder/bin/python" -m pip install -q -r requirements/mim.txt && \
	"$$folder/bin/python" -m pip install -q --no-deps $(MIM) && \
	"$$folder/bin/python" tests/mim_commands.py "$$folder/bin/python"

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
