# make demo and make test set up all that they need in $(VENV) first; only the first call takes long.
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
PYTEST_ARGS ?=
SOURCES = mmaqd tools tests configs

.PHONY: demo test lint format setup

demo: setup
	$(VENV)/bin/python tools/demo.py $(DEMO_ARGS)

test: setup
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: setup
	$(VENV)/bin/python -m flake8 $(SOURCES)
	$(VENV)/bin/python -m isort --check-only --diff $(SOURCES)
	$(VENV)/bin/python -m yapf --diff --recursive --parallel $(SOURCES)

format: setup
	$(VENV)/bin/python -m isort $(SOURCES)
	$(VENV)/bin/python -m yapf --in-place --recursive --parallel $(SOURCES)

setup:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/dev/setup_env.sh
