# make demo   set up, generate Scenes, train three networks, print a table
# make test   set up and run the tests, a process per core; ARGS=-n0 for one alone
# make test-fork   the same on the maintained fork of the stack, in .venv-fork
# make test-full   the same on the full mmcv, in .venv-full; compiles it first, 20
#                  minutes in all
# make kernels   compile the Triton and CUDA kernels for every GPU, without one
# make docs-check   run every command of README and docs
# ARGS=... are arguments of the demo, the tests or the check of the documents.
# make mim-check   every mim command on every kind of install, in a new environment
# TORCH=... are the words that pip gets for PyTorch, VENV=... the environment,
# STACK=fork or STACK=full lets any of these use another stack.
PYTHON ?= python3
TORCH ?= torch==2.13.0
STACK ?= stack
MIM ?= openmim==0.3.9
VENV ?= .venv$(filter-out -stack,-$(STACK))
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Without the cache, in which pip cannot tell an mmcv with compiled operators from
# one without. The full mmcv is compiled for the PyTorch that is there; the fork's
# is not compiled, because a build in isolation sees no PyTorch.
STACK_FLAGS_full := --no-cache-dir --no-build-isolation
STACK_FLAGS_fork := --no-cache-dir
STACK_MODULE_full := , mmcv._ext

.PHONY: demo test test-fork test-full lint kernels docs-check mim-check setup

demo: setup
	$(PY) tools/demo.py $(ARGS)

test: setup $(VENV)/.test
	$(PY) -m pytest -n auto --dist loadfile $(ARGS)

test-fork:
	$(MAKE) test STACK=fork

test-full:
	$(MAKE) test STACK=full

lint: $(VENV)/.test
	$(PY) -m ruff check .

kernels: setup $(VENV)/.test
	$(PY) dev/check_kernels.py

docs-check: setup $(VENV)/.test
	$(PY) dev/docs_check.py $(ARGS)

# openmim's own requirements would replace some of the stack's; see mim.txt.
mim-check:
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(MAKE) setup VENV="$$folder" && \
	"$$folder/bin/python" -m pip install -q -r requirements/mim.txt && \
	"$$folder/bin/python" -m pip install -q --no-deps $(MIM) && \
	"$$folder/bin/python" dev/mim_check.py "$$folder/bin/python"

setup: $(VENV)/.stack

$(VENV)/.stack: requirements/$(STACK).txt requirements/libraries.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -r requirements/libraries.txt
	$(PIP) --no-deps $(STACK_FLAGS_$(STACK)) -r requirements/$(STACK).txt
	$(PY) -c "import torch$(STACK_MODULE_$(STACK))"
	touch $@

$(VENV)/.test: requirements/test.txt | $(VENV)/.stack
	$(PIP) -r requirements/test.txt
	touch $@
