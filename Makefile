# `make fit` and `make test` set everything up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: fit test lint docs results clean

fit: .venv/installed
	$(BIN)/auxlight fit --config configs/wa_rl.yaml --config configs/data/digits.yaml --config configs/small.yaml

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

results: .venv/installed
	$(BIN)/python docs/results/build.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	touch $@

clean:
	rm -rf .venv logs docs/_build
