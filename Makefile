# Every target works in a fresh clone with Python 3.11 or 3.12 and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Small networks on few cores: one thread a process is faster than several that wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-browser test-all lint types docs tables bench bench-quick clean

demo: $(VENV)/.installed-demo
	$(BIN)/forefend demo

test: $(VENV)/.installed-dev lint types
	$(BIN)/pytest -n 2 -m "not slow and not browser"

# Needs Chromium; FOREFEND_BROWSER may name its binary.
test-browser: $(VENV)/.installed-dev
	$(BIN)/pytest -m browser

test-all: $(VENV)/.installed-dev lint types
	$(BIN)/pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Warnings are errors: a broken link or a docstring that does not parse fails the build.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

tables: $(VENV)/.installed-dev
	$(BIN)/forefend report --readme README.md
	$(BIN)/forefend report --readme results/README.md
	for paper in aaa jatp robustifier rtfe transfer; do $(BIN)/forefend report --readme docs/papers/$$paper.md || exit 1; done
	$(BIN)/forefend report --readme docs/freezing.md
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.speed_table
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.published
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.peers.compare
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.parity.page
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.fast.page
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.keep_best.page
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.serving.page

# Speed beside other libraries: make bench ARGS="--benchmarks attack memory"
bench: $(VENV)/.installed-dev
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.speed $(ARGS)

bench-quick: $(VENV)/.installed-dev
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.speed --quick $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "forefend needs Python 3.11 or 3.12: name one, as in make demo PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps torchattacks==3.5.1
	touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache
