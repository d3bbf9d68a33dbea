# Everything a checkout needs; each target builds .venv first when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDY ?= runs/study

.PHONY: help setup demo test test-all faults lint format types wheel benchmark clean

help:
	@echo "make setup      install into .venv, as pinned in constraints.txt"
	@echo "make demo       three families on the embedded digits, measured and reported (STUDY=$(STUDY))"
	@echo "make test       the tests that take minutes"
	@echo "make test-all   all tests, the slow laws among them"
	@echo "make faults     what disks, files, terminals and strangers do: a table of faults, each in a process of its own"
	@echo "make lint types wheel   the other checks"
	@echo "make benchmark  ratios against hand-written loops, measured here"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ppmodels needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (choose one: make PYTHON=python3.12 setup)" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Steps that fit into four minutes of two cores; the longest runs first, so that there is a first table within one.
demo: $(STAMP)
	$(BIN)/ppmodels study gated-pixelcnn gan vae --data digits --seeds 3 --steps gated-pixelcnn=400 --steps gan=3000 \
		--steps vae=1500 --out $(STUDY) --overwrite

# A process for each core, each on one thread; tests are handed out by the groups of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST) -m 'not slow and not faults'

test-all: $(STAMP)
	$(PYTEST)

faults: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist load -m faults tests/faults

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

wheel: $(STAMP)
	rm -rf dist build/wheel-check
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build && wheel-check/bin/python -I -c 'import inference, ppmodels; print(inference.SVI, ppmodels.VAE)'
	cd build && wheel-check/bin/python -I -c 'from ppmodels.app.study import rendering; rendering.templates()'

benchmark: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
