# Commands that do all the set-up on a fresh machine: `make quickstart`, `make test`, and `make playground`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: quickstart test playground docs clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.ready
	@$(BIN)/python -m experiments.quickstart $(ARGS)

test: $(VENV)/.ready
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest $(ARGS)

# Families of MuJoCo Playground's own environments, in a virtual environment of its own: it wants a newer JAX.
playground: $(VENV)-playground/.ready
	@$(VENV)-playground/bin/python -c 'import mujoco_playground'  # or its tests would be skipped
	@$(VENV)-playground/bin/python -m pytest -n0 tests/test_playground.py $(ARGS)

$(VENV)-playground/.ready: setup.py constraints_playground.txt
	@echo 'Installing into $(VENV)-playground (about 1 GB, a minute or two)...'
	@$(PYTHON) -m venv --clear $(VENV)-playground
	@$(VENV)-playground/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints_playground.txt --editable '.[playground]' 'pytest<9.2' pytest-xdist hypothesis
	@touch $@

# The reference, made of the docstrings, without a network: runs/reference/index.html
docs: $(VENV)/.ready
	@$(BIN)/pdoc --docformat google --output-directory runs/reference metaimprove $(addprefix metaimprove.adapters.,brax dm_env gymnasium minari mujoco)
	@echo 'The reference is runs/reference/index.html'

# The virtual environment is complete when .ready is there; a half-made one is made again.
$(VENV)/.ready: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo 'Installing into $(VENV) (about 700 MB, a minute or two)...'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-playground .cache build *.egg-info
