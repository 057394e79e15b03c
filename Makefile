# Needs make and Python 3.11 or newer; everything else is installed into .venv, at the versions in constraints.txt.
# `make PYTHON=python3.12 …` chooses the interpreter, `make PIP_ARGS="…" …` adds to every `pip install`.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
LIGHT := .venv-light
TRITON := .triton
BIN := $(VENV)/bin
LIGHT_TESTS := $(filter-out tests/test_readme.py,$(wildcard tests/test_*.py)) tests/wire tests/client
HERE_TESTS := not network and not gpu
# Tests run in so many processes, a file's in one of them.
JOBS ?= 2
# Of two processes on two cores, each with two threads that wait for one another in a loop, one waits for what does not
# run: tests of parity took 95 s instead of 20. So those threads sleep while they wait.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/pytest -n $(JOBS) --dist loadfile
STORE ?=
export Q

# $(call install,VENV,WHAT): WHAT into VENV, made if missing; its pip first, since an old one knows no dependency groups.
define install
$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.12" % v[:2])'
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --upgrade pip -c constraints.txt $(PIP_ARGS)
$(1)/bin/python -m pip install --editable $(2) -c constraints.txt $(PIP_ARGS)
touch $@
endef

.PHONY: help demo check lint test test-light test-gpu fuzz bench bench-gpu format constraints clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A database's client comes with its own marker, so that the plain demo stays small.
demo: $(VENV)/.demo$(STORE:%=-%) ## Search the standard library's docstrings; Q="…" asks your question, STORE=lancedb|qdrant|chroma in a database
	@$(BIN)/tercet demo $(STORE:%=--store %) $${Q:+"$$Q"}

check: lint ## Format, lint, types, import contracts, and all tests but the slow ones
	$(PYTEST) -m "not slow and $(HERE_TESTS)"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Being watched for coverage doubles the time of tests: those that draw thousands of requests go without.
test: lint test-light $(TRITON)/.installed ## Everything in `check` with its coverage, the slow tests, and test-light
	scripts/system-packages.sh
	$(PYTEST) --cov --cov-report=term:skip-covered -m "not slow and $(HERE_TESTS)"
	$(PYTEST) -m "slow and $(HERE_TESTS)"

test-light: $(LIGHT)/.light ## The client side's tests in an environment without torch
	$(LIGHT)/bin/python -c 'import importlib.util as u, sys; u.find_spec("torch") and sys.exit("torch is in $(LIGHT)")'
	$(LIGHT)/bin/python -m pytest -p no:cacheprovider $(LIGHT_TESTS)

test-gpu: $(VENV)/.dev ## The tests that need an NVIDIA device
	$(BIN)/pytest -m "gpu and not network"

fuzz: $(VENV)/.dev ## The tests that draw their examples, with new ones each time
	$(PYTEST) --hypothesis-profile search -m "hypothesis and $(HERE_TESTS)"

bench: $(VENV)/.dev ## Speed and memory beside the peers on this CPU, into docs/benchmarks.md; ROUNDS=5, over an hour
	$(BIN)/python -m pip install --quiet --group bench -c constraints.txt $(PIP_ARGS)
	$(BIN)/python benchmarks/run.py --rounds $(or $(ROUNDS),5)

bench-gpu: $(VENV)/.dev ## Speed beside the peers on one NVIDIA device, into docs/benchmarks.md; ROUNDS=5
	$(BIN)/python benchmarks/run.py --gpu --rounds $(or $(ROUNDS),5)

format: $(VENV)/.dev ## Write the files as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: ## Pin anew: the newest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet --upgrade pip $(PIP_ARGS)
	.venv-constraints/bin/python -m pip install --quiet --editable '.[all]' --group dev --group bench triton $(PIP_ARGS)
	{ head -n 1 constraints.txt; \
	  .venv-constraints/bin/python -m pip freeze --all --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > .constraints.new
	mv .constraints.new constraints.txt
	rm -rf .venv-constraints

clean: ## Remove the environments and every cache
	rm -rf $(VENV) $(LIGHT) $(TRITON) .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis

# Triton alone, beside the environment: tests interpret its kernels, and nobody without a GPU needs a gigabyte more.
$(TRITON)/.installed: $(VENV)/.dev constraints.txt
	mkdir -p $(TRITON)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(TRITON) 'triton; sys_platform == "linux"' -c constraints.txt $(PIP_ARGS)
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt
	$(call install,$(VENV),'.[demo]')

$(VENV)/.demo-memory: $(VENV)/.demo
	touch $@

$(VENV)/.demo-%: pyproject.toml constraints.txt
	$(call install,$(VENV),'.[demo,$*]')

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,$(VENV),'.[all]' --group dev)
	@touch $(VENV)/.demo

$(LIGHT)/.light: pyproject.toml constraints.txt
	$(call install,$(LIGHT),. --group light)
