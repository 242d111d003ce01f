# Everything runs in .venv, which `make setup` creates; every target makes it if it is missing.
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow portability stress lint format bench docs tables clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

setup: $(STAMP) ## create .venv and install the package into it

$(STAMP): pyproject.toml constraints.txt
	@python3 -c 'import ensurepip' 2>/dev/null || { echo "python3 has no venv module: install your system's python3-venv package"; exit 1; }
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade -c constraints.txt pip
	$(PY) -m pip install --quiet -c constraints.txt -e ".[test,lint,docs]"
	@touch $@

demo: $(STAMP) ## solve a boundary value problem from a file with the shipped weights, with a table and a figure
	$(PY) examples/boundary_value_problem.py demo

test: $(STAMP) ## run every test (under 8 minutes on two cores)
	$(PY) -m pytest -q -n 2

slow: $(STAMP) ## run the full-size tests as well, then `portability`
	$(PY) -m pytest -q -m "slow or not slow"
	$(MAKE) portability

portability: $(STAMP) ## run every test with the kernels of other processors, in turn (an hour and more)
	$(PY) benchmarks/portability.py tests

stress: $(STAMP) ## run the stress checks at full length into results/reliability.* (half an hour)
	$(PY) -m tests.stress reliability --preset cpu

lint: $(STAMP) ## ruff and mypy
	$(VENV)/bin/ruff check src studies tests benchmarks examples docs
	$(VENV)/bin/ruff format --check src studies tests benchmarks examples docs
	$(VENV)/bin/mypy

format: $(STAMP) ## let ruff rewrite the layout of the code
	$(VENV)/bin/ruff format src studies tests benchmarks examples docs
	$(VENV)/bin/ruff check --fix src studies tests benchmarks examples docs

bench: $(STAMP) ## measure speed and memory into results/bench.json
	$(PY) benchmarks/bench.py

docs: $(STAMP) ## build the documentation into docs/_build
	$(VENV)/bin/sphinx-build -W --keep-going -b html docs docs/_build/html

tables: $(STAMP) ## rewrite the numbers in README and docs from results/*.json
	$(PY) -m studies.harness.pages README.md docs

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) docs/_build build dist demo
