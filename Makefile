# `make demo` and `make test` are all a fresh machine needs; both make and share one .venv if there is none.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-gpu lint wasm wheel clean

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

# The tests that need a CUDA device, in as many processes as there are cores.
test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu -n auto

# The engine of the page: after each change of mhsvm/native/ultralight.c or .h; needs clang and lld.
wasm: $(INSTALLED)
	$(BIN)/python -m mhsvm.native.wasm

# A wheel with the C engine for each platform; needs ziglang and build.
wheel: $(INSTALLED)
	$(BIN)/python scripts/wheel_with_engine.py

clean:
	rm -rf .venv build *.egg-info
