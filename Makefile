# `make run` and `make test` do everything on a fresh machine: environment, installation, job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
WORKDIR ?= runs/miniature

.PHONY: run first-run test test-slow lint format clean

run: $(STAMP)
	$(BIN)/python -m tga_jax.main --config=configs/miniature.py --workdir=$(WORKDIR)

first-run: $(STAMP)
	$(BIN)/python -m examples.first_run --workdir=runs/first

test: lint
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "not slow and not tpu_compile"

test-slow: $(STAMP)
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): requirements.txt requirements-dev.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache
