# The two commands of a new user are `make edit` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/*.cpp csrc/*/*)
SAMPLE := ip2p_fast/pocket/samples/meadow_cat.png

.PHONY: edit test lint format bench clean

edit: $(VENV)/.runtime  ## edit a sample picture with the pocket model
	@mkdir -p out
	$(BIN)/ip2p-fast edit $(SAMPLE) -p "make it night" -o out/edit.png --seed 7 --compare

test: $(VENV)/.dev  ## the default tests
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

bench: $(VENV)/.dev  ## every figure of benchmarks/results that this machine can make
	$(BIN)/ip2p-fast bench

clean:
	rm -rf $(VENV) build out *.egg-info ip2p_fast/_C*.so ip2p_fast/_build.json

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# what one edit needs: the pocket model's graphs run without PyTorch
$(VENV)/.runtime: $(VENV)/.venv pyproject.toml setup.py constraints.txt
	$(PIP) install -c constraints.txt setuptools wheel
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[openvino]"
	@touch $@

# PyTorch first: the extension is built against the one that is installed, not in an isolated environment.
$(VENV)/.torch: $(VENV)/.venv constraints.txt
	$(PIP) install -c constraints.txt setuptools wheel ninja pybind11 numpy torch
	@touch $@

# pip keeps the build's own line to itself
WHAT_WAS_BUILT = $(BIN)/python -c "from ip2p_fast.build_info import build_info as b; \
	print('kernels: extension {extension} ({why})'.format(**b()))"

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[dev]"
	@$(WHAT_WAS_BUILT)
	@touch $@ $(VENV)/.runtime
