# Limelight: `make help` says what each target does. Every target sets up what it needs by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Any Python 3.8 or newer may run set-up; it finds the Python 3.11 of the environment itself, or takes PYTHON.
HOST_PYTHON := $(shell for name in "$(PYTHON)" python3 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && { echo "$$name"; break; }; done)
BIN := .venv/bin

# Where the demo's data comes from: simulate, completejourney, or kuairand / kuailive with DATA=folder.
SOURCE ?= simulate
DATA ?=
OUT ?= build/demo
# Where `make bench-train` takes its steps: cpu or cuda.
DEVICE ?= cpu
# More arguments for pytest: make test ARGS="-k feed -x"
ARGS ?=
# Processes that share the tests: Spark jobs this small wait more than they compute. By file, as files share what is
# costly; in their order, as xdist would put those with few tests last, and these take longest.
PYTEST_WORKERS ?= 2
PYTEST_ARGS = -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
ifdef PYTHON
export PYTHON
endif

define set_up
$(if $(HOST_PYTHON),,@echo "setup: Python 3.11 is missing: install it (Debian and Ubuntu: python3.11 python3.11-venv \
	python3.11-dev) or name one with PYTHON=/path/to/python3.11." >&2; exit 1)
@$(HOST_PYTHON) setup/install.py
endef

.PHONY: help
help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup:  ## Make .venv from the lock, with Horovod (HOROVOD_GPU_OPERATIONS=NCCL for GPUs, PYTHON=path for the interpreter)
	$(set_up)

.PHONY: demo
demo:  ## Raw logs to a published model and a report in OUT (SOURCE=simulate|kuairand|kuailive|completejourney DATA=folder)
	$(set_up) $(if $(filter completejourney,$(SOURCE)),--extra completejourney)
	@$(BIN)/limelight demo --source "$(SOURCE)" --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

.PHONY: test
test:  ## Run every test on Spark 3.5 (ARGS="-k feed -x" goes to pytest)
	$(set_up)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-spark4
test-spark4:  ## Run the tests that use Spark on Spark 4.0, in .venv-spark4 (needs a system Java 17 or 21)
	$(set_up) --profile spark4
	@.venv-spark4/bin/python -m pytest -m spark tests/features tests/pipeline $(PYTEST_ARGS)

.PHONY: parity
parity:  ## Our models beside DeepCTR-Torch, FuxiCTR and torch-rechub with equal weights, in .venv-parity
	$(set_up) --profile parity
	@OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest tests/parity --confcutdir tests/parity -rs --figures build/bench/parity.json $(ARGS)

.PHONY: airflow-demo
airflow-demo:  ## Airflow on SQLite in .venv-airflow: both DAGs to their end, a task killed on the way (OUT=build/airflow-demo)
	$(set_up)
	$(set_up) --profile airflow
	@$(BIN)/python -m jobs.airflow_demo --out "$(if $(filter file,$(origin OUT)),build/airflow-demo,$(OUT))" $(ARGS)

.PHONY: bench-features
bench-features:  ## What a day's features cost: carried, in bulk, in DuckDB → build/bench/features.json (ARGS="--help" for sizes)
	$(set_up)
	@$(BIN)/python -m benchmarks.bench_features $(ARGS)

.PHONY: bench-feed
bench-feed:  ## Rows per second from Parquet into batches, beside bare Arrow and Petastorm → build/bench/feed.json (ARGS="--help")
	$(set_up)
	@$(BIN)/python -m benchmarks.bench_feed $(ARGS)

.PHONY: bench-accuracy
bench-accuracy:  ## How good the models are where that is known → build/bench/accuracy.json (ARGS="--census FOLDER")
	$(set_up)
	@$(MAKE) --no-print-directory parity ARGS=
	@$(BIN)/python -m benchmarks.bench_accuracy $(ARGS)

.PHONY: bench-gate
bench-gate:  ## How often the gate is wrong: planted candidates, twins, worse ones → build/bench/operations.json (ARGS="--help")
	$(set_up)
	@$(BIN)/python -m benchmarks.gate_trials $(ARGS)

.PHONY: bench-incremental
bench-incremental:  ## What incremental retrains lose and cost beside full ones, on ten mornings → build/bench/operations.json (ARGS="--help")
	$(set_up)
	@$(BIN)/python -m benchmarks.bench_incremental --set days.train=14 $(ARGS)

.PHONY: bench-train
bench-train:  ## What a training step costs, beside the peers' → build/bench/train.json (DEVICE=cuda; ARGS="--help" for sizes)
	$(set_up)
	$(set_up) --profile parity
	@$(BIN)/python -m benchmarks.bench_train --device "$(DEVICE)" $(ARGS)

.PHONY: chaos
chaos:  ## Faults at 125 random points: nothing lost, and reruns end alike → build/bench/operations.json (ARGS="--help")
	$(set_up)
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: chaos-features
chaos-features:  ## Those of them that need Spark alone: driver, executor, full disk (ARGS="--trials 5 --seed 1")
	$(set_up)
	@$(BIN)/python -m tests.chaos --kinds driver,executor,disk-features --trials 50 --out build/bench/chaos-features $(ARGS)

.PHONY: lint
lint:  ## Ruff, its format, mypy strict, the import contracts, the catalog's lock
	$(set_up)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -c 'from features.schema import load_catalog, lock_text; print(lock_text(load_catalog()), end="")' \
		| diff features/catalog.lock.json - \
		|| { echo "features/catalog.lock.json is out of date: run \`make catalog\` and commit it." >&2; exit 1; }

.PHONY: format
format:  ## Let ruff format the code and fix what it can
	$(set_up)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: catalog
catalog:  ## Rewrite features/catalog.lock.json after a change of the catalog
	$(set_up)
	@$(BIN)/python -m features.schema

.PHONY: docs
docs:  ## Rewrite what README.md and docs/features.md take from the code
	$(set_up)
	@$(BIN)/python -m jobs.docs

.PHONY: lock
lock:  ## Resolve setup/*.lock anew from pyproject.toml (needs the network)
	$(set_up)
	@$(BIN)/python -m venv build/uv && build/uv/bin/python -m pip install --quiet uv
	@build/uv/bin/python setup/make_lock.py

.PHONY: dist
dist:  ## Zip the packages for spark-submit --py-files: build/dist/limelight.zip
	$(set_up)
	@$(BIN)/python setup/make_dist.py

.PHONY: clean
clean:  ## Remove build/ and the caches of tools; the environments and Horovod's wheel stay
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache *.egg-info
