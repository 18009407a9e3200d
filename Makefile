# make demo and make test set up all that they need in $(VENV) first; only the first call takes long.
# make docs does so in $(DOCS_VENV), which needs neither torch nor mmcv.
PYTHON ?= python3
# Whose mmcv, mmengine and mmdet: openmmlab, or onedl for the maintained forks; each has its own $(VENV).
STACK ?= openmmlab
VENV ?= .venv$(if $(filter-out openmmlab,$(STACK)),-$(STACK))
DOCS_VENV ?= .venv-docs
DEMO_ARGS ?=
PYTEST_ARGS ?=
# Processes that tests run in, with a thread each: make test WORKERS=8
WORKERS ?= 2
SOURCES = mmaqd tools tests configs docs/conf.py

.PHONY: demo test lint format docs setup

demo: setup
	$(VENV)/bin/python tools/demo.py $(DEMO_ARGS)

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: setup
	$(VENV)/bin/python -m flake8 $(SOURCES)
	$(VENV)/bin/python -m isort --check-only --diff $(SOURCES)
	$(VENV)/bin/python -m yapf --diff --recursive --parallel $(SOURCES)

format: setup
	$(VENV)/bin/python -m isort $(SOURCES)
	$(VENV)/bin/python -m yapf --in-place --recursive --parallel $(SOURCES)

docs: $(DOCS_VENV)/requirements.txt
	rm -rf build/docs docs/api
	$(DOCS_VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet -c docs -b html . build/docs
	@echo "The site: build/docs/index.html"

# The extra alone: installing the package would bring MMDetection, and the site only reads the code.
$(DOCS_VENV)/requirements.txt: setup.cfg
	$(PYTHON) -m venv $(DOCS_VENV)
	$(PYTHON) -c "import configparser as c; p = c.ConfigParser(); p.read('setup.cfg'); \
	    print(p['options.extras_require']['docs'])" > $@.new
	$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $@.new
	mv $@.new $@

setup:
	@PYTHON="$(PYTHON)" STACK="$(STACK)" VENV="$(VENV)" bash tools/dev/setup_env.sh
