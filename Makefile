# `make run` and `make test` do everything on a fresh machine: environment, installation, job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
WORKDIR ?= runs/miniature
TEST_PROCESSES ?= 2

.PHONY: run first-run test test-slow test-tpu lint format docs clean

run: $(STAMP)
	$(BIN)/python -m tga_jax.main --config=configs/miniature.py --workdir=$(WORKDIR)

first-run: $(STAMP)
	$(BIN)/python -m examples.first_run --workdir=runs/first

# Files in their order: the reordering by number of tests would run the long ones of one test last.
test: lint
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "not slow and not tpu_compile" --durations=10 \
		-n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "slow"

# Compiles for TPUs that are not here; libtpu is kept out of every other run, as it looks for one.
test-tpu: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check libtpu==0.0.52
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 $(BIN)/python -m pytest -m "tpu_compile"
	$(BIN)/pip uninstall --quiet --yes libtpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site in site/; a link that leads nowhere ends it.
docs: $(STAMP)
	$(BIN)/mkdocs build --strict

$(STAMP): requirements.txt requirements-dev.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(VENV)-docs site runs .mypy_cache .ruff_cache
