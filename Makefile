# eva-bench. `make` alone, or `make help`, lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=
POCKET_MODELS := language exam encoder vision decision

# `make tables results_dir=mine` would be ignored by make: settings go to the command in ARGS.
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out ARGS SUITE TASK SCALE MODEL DATA PYTHON VENV,$(GIVEN))
$(if $(UNKNOWN),$(error unknown: $(UNKNOWN). Settings of a command go into ARGS, as in: make tables ARGS="results_dir=mine"))

# `make run TASK=math` would be ignored, too: each name with the targets that read it.
ARGS_GO_TO := run test tables figures probes report claims perf gpu-check benchmark pretrain select fetch status submit retry wandb-sync
SUITE_GO_TO := status submit retry
TASK_GO_TO := fetch
SCALE_GO_TO := fetch
DATA_GO_TO := fetch
MODEL_GO_TO := fetch pretrain
GOALS := $(or $(MAKECMDGOALS),$(.DEFAULT_GOAL))
ifeq ($(MAKELEVEL),0)
CHECKED := $(foreach name,$(filter-out PYTHON VENV,$(GIVEN)),$(if $(filter $($(name)_GO_TO),$(GOALS)),,$(error \
	'make $(GOALS)' does not read $(name); these do: $($(name)_GO_TO)$(if $(filter ARGS,$(name)),,. Settings of a command go into ARGS)))))
endif

.PHONY: help setup run test matrix lint perf gpu-check benchmark fetch tables claims probes figures report screen pretrain select check-tables clean status submit retry wandb-sync test-faults

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	@touch $@

setup: $(READY)  ## Create .venv and install what constraints.txt pins (other targets do it by themselves)

run: $(READY)  ## One run: make run ARGS="method=pissa seed=1" (default method=eva task=gsm8k)
	$(PY) run.py method=eva task=gsm8k $(ARGS)

test: $(READY)  ## All tests
	$(PY) -m pytest $(ARGS)

matrix: $(READY)  ## Every task at every scale on a stand-in hub, and the table of what passed: docs/matrix.md (minutes)
	$(PY) -m pytest -m "hub or not hub" tests/e2e/test_fetch_and_run.py --junitxml=runs/matrix.xml; $(PY) -m tests.matrix runs/matrix.xml

test-faults: $(READY)  ## kill -9 a hundred runs and compare what is left: results/bench/faults.md (minutes)
	$(PY) -m tests.faults.kill 100

lint: $(READY)  ## Style, layers of imports, types
	$(PY) -m ruff check .
	$(VENV)/bin/lint-imports
	$(PY) -m mypy

tables: $(READY)  ## Tables from the committed records: results/tables
	$(PY) -m eva_bench.reporting.tables $(ARGS)

figures: $(READY)  ## Figures from the committed records: results/figures
	$(PY) -m eva_bench.reporting.figures $(ARGS)

probes: $(READY)  ## What fine-tuning did to a model: make probes ARGS="intruders suite=gsm8k" (docs/probes.md)
	@$(PY) -m eva_bench.probes $(ARGS)

report: $(READY)  ## One page to look at, from the records: results/report/index.html
	$(PY) -m eva_bench.reporting.page $(ARGS)

screen: report  ## The report's first screen as the picture in the README: docs/img/report.png (needs Chromium)
	$(PY) -m tests.first_screen

claims: $(READY)  ## Claims of the literature with verdicts from the records: docs/claims.md
	$(PY) -m eva_bench.reporting.claims $(ARGS)

check-tables: tables claims  ## Fail if the committed tables and claims are not what the records give
	@test -z "$$(git status --porcelain -- results/tables docs/claims.md)" || \
		{ git status --short -- results/tables docs/claims.md; git diff -- results/tables docs/claims.md; exit 1; }

perf: $(READY)  ## Speed and memory figures: results/bench (quiet machine, some minutes)
	$(PY) -m perf.main $(ARGS)

gpu-check: $(READY)  ## Ten minutes on one GPU, no network: do the paper's models work here? results/bench/gpu.md
	$(PY) -m perf.gpu_check $(ARGS)

benchmark: $(READY)  ## The whole pocket benchmark in two processes, then tables, figures and report (hours; continues where it stopped)
	$(PY) run.py suite=benchmark hydra/launcher=local hydra.launcher.processes=2 tracking=off $(ARGS)
	$(MAKE) tables figures report ARGS="$(filter results_dir=%,$(ARGS))"

pretrain: $(READY)  ## Make the pocket models again (an hour), or one of them: make pretrain MODEL=vision
	$(if $(filter-out $(POCKET_MODELS),$(MODEL)),$(error unknown MODEL=$(MODEL). Known: $(POCKET_MODELS)))
	@for model in $(or $(MODEL),$(POCKET_MODELS)); do $(PY) -m pocket.pretrain.$$model $(ARGS) || exit; done

select: $(READY)  ## Choose learning rates from stage=tune records: make select ARGS="scale=pocket family=math"
	$(PY) -m eva_bench.sweeps.tune $(ARGS)

fetch: $(READY)  ## Get data and models, on a machine with network: make fetch TASK=gsm8k SCALE=lite
	$(PY) -m eva_bench.run.fetch $(if $(TASK),task=$(TASK)) $(if $(SCALE),scale=$(SCALE)) $(if $(MODEL),model=$(MODEL)) $(if $(DATA),data=$(DATA)) $(ARGS)

status: $(READY)  ## How a suite stands: make status SUITE=gsm8k ARGS="scale=lite" (--json for scripts)
	@$(PY) -m eva_bench.sweeps.status suite=$(SUITE) $(ARGS)

submit: $(READY)  ## Queue what is left of a suite on SLURM and return: make submit SUITE=gsm8k ARGS="scale=lite"
	@$(PY) -m eva_bench.sweeps.slurm suite=$(SUITE) $(ARGS)

retry: $(READY)  ## Run what is not ok in a suite, here: make retry SUITE=gsm8k
	$(PY) run.py suite=$(SUITE) wait=false $(ARGS)

wandb-sync: $(READY)  ## Send offline W&B runs; ARGS="rebuild=true" makes them from the records
	$(PY) -m eva_bench.records.wandb_sync $(ARGS)

clean:  ## Remove what runs left (not records): runs/
	rm -rf runs
