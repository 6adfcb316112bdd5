# Everything below starts from nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2  # processes that run tests, one thread each

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

# Stamps: what is installed stays until pyproject.toml or constraints.txt changes.
MADE := $(VENV)/.made
CORE := $(VENV)/.core
DEV := $(VENV)/.dev
NIGHTLY := $(VENV)/.nightly
# Other people's clients of the server: they do not go with the versions that univg is tested with.
CLIENTS := .clients
# Nor do the programs that take our files: an environment for each, two gigabytes.
NEIGHBOURS := .neighbours
NEIGHBOUR_NAMES := llamafactory lmms_eval ms_swift verl
# vLLM, 3.5 GB: nor does it.
ENGINES := .engines/vllm

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # one environment, one installer at a time, also under `make -j`
.PHONY: help demo test lint extras format nightly neighbours engines docs-report bench clean

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(CORE)  ## install, then ground the bundled examples with the embedded model
	$(BIN)/univg demo --out demo-out

test: $(DEV)  ## run the tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope $(PYTEST_ARGS)

nightly: $(NIGHTLY) $(CLIENTS)/.made neighbours  ## run the tests that take minutes
	-@test -n "$$UNIVG_VLLM" || $(MAKE) --no-print-directory engines  # its tests are skipped where there is none
	UNIVG_CLIENTS=$(CLIENTS)/bin/python $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

neighbours: $(NEIGHBOUR_NAMES:%=$(NEIGHBOURS)/%/.made)  ## install the programs that take our files, each by itself (8 GB)

engines: $(ENGINES)/.made  ## install vLLM (its build for CPUs, 3.5 GB) for the nightly tests, in an environment of its own

bench: $(DEV)  ## a GRPO step of TRL's trainer and of univg's, side by side (half an hour)
	$(BIN)/python benchmarks/grpo_step.py --plot grpo-step.png

lint: $(DEV)  ## check style, format and types
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check --output-format concise .
	$(BIN)/mypy

extras: $(DEV)  ## ask the installer whether all extras go with constraints.txt, and so each of them
	$(PIP) --dry-run --editable ".[$$($(BIN)/python -c \
		'from importlib.metadata import metadata as m; print(*m("univg").get_all("Provides-Extra"), sep=",")')]"

format: $(DEV)  ## put right what can be put right by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-report: $(DEV)  ## evaluate the embedded model and photograph its report for docs/evaluation.md (needs Chromium)
	$(BIN)/python docs/make_report_pictures.py

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(CLIENTS) $(NEIGHBOURS) $(ENGINES) demo-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):  # an environment that is there and runs is kept: somebody may have made it by hand
	@$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(CORE): pyproject.toml constraints.txt | $(MADE)
	@echo "Installing univg into $(VENV); PyTorch is most of it."
	$(PIP) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(MADE)
	@echo "Installing univg and what its tests need into $(VENV); PyTorch is most of it."
	$(PIP) --editable '.[dev]'
	@touch $(CORE) $@

$(NIGHTLY): $(DEV)
	$(PIP) --editable '.[dev,deepspeed,qlora,trackers]'
	@touch $(CORE) $(DEV) $@

$(CLIENTS)/.made: tests/serve/clients/requirements.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install -qq --requirement $<
	@touch $@

$(NEIGHBOURS)/%/.made: tests/neighbours/requirements/%.txt
	@echo "Installing what $< names into $(@D); PyTorch is most of it."
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -qq --no-compile --requirement $<
	$(@D)/bin/python tests/neighbours/fit_to_torch.py
	@touch $@

$(ENGINES)/.made: tests/make_vllm.py pyproject.toml
	$(PYTHON) tests/make_vllm.py $(ENGINES)
	@touch $@
