# Two commands from nothing: "make quickstart" installs and runs the main job, "make test" installs and tests.
# Running them again is quick: what is installed is remembered by stamp files in the virtual environment.

PYTHON ?= python3
VENV ?= .venv
OUT ?= outputs/quickstart
ARGS ?=
MODEL ?= smollm2-135m-instruct
# Of the first run: few edits, half of the text that the model writes for its statistics, and less measured beside
# the edits than by default, so that it takes minutes
SHORT := edits=20 'runner.checkpoints=[]' method.mom2_n_samples=128
SHORT += evaluation.retained=200 evaluation.perplexity=10 evaluation.fluency=0
PYTEST_ARGS ?= -q

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet -c constraints.txt
# The tests run in JOBS processes; the longest, on the real model, begin.
JOBS ?= 2
TIERS := tests/real tests/unit tests/tiny tests/gpu $(if $(EASYEDIT_HOME),tests/easyedit)

.PHONY: quickstart test test-all test-easyedit fuzz kill-test clean

quickstart: $(VENV)/.installed
	@if $(PY) -m easyedit_neuron model get $(MODEL); then world="model=$(MODEL) data=real-world"; else \
	  echo "$(MODEL) cannot be had here: going on with tiny-llama, a small model of an invented world"; \
	  world="model=tiny-llama data=tiny-world"; fi; \
	$(PY) -m easyedit_neuron $$world $(SHORT) output_dir=$(OUT) $(ARGS)

test: $(VENV)/.installed-test
	-@$(PY) -m easyedit_neuron model get $(MODEL)  # without it tests/real says so and is skipped
	$(PY) -m pytest $(PYTEST_ARGS) --numprocesses $(JOBS) $(TIERS)

# Also what takes minutes on the real model
test-all: export EASYEDIT_NEURON_LONG = 1
test-all: test

# Damaged inputs of all kinds (tests/tiny/test_fuzz.py), and runs that are killed and continued; with counts.
fuzz kill-test: export EASYEDIT_NEURON_LONG = 1
fuzz: $(VENV)/.installed-test
	$(PY) -m pytest $(PYTEST_ARGS) -s tests/tiny/test_fuzz.py
kill-test: $(VENV)/.installed-test
	$(PY) -m pytest $(PYTEST_ARGS) -s tests/tiny/test_lifelong_kill.py

# The real EasyEdit: EASYEDIT_HOME names a clone of it.
test-easyedit: $(VENV)/.installed-test
	@test -n "$(EASYEDIT_HOME)" || { echo "set EASYEDIT_HOME to a clone of EasyEdit" >&2; exit 2; }
	$(PY) -m pytest $(PYTEST_ARGS) tests/easyedit

# torch first, on its own: with the build of your machine installed, nothing later pulls another one.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) --editable '.[report,gguf]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) outputs build *.egg-info
