# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check test-slow coverage mutation docs cards wheel-test lock fuzz bench bench-sampling bench-scale bench-review bench-peers weights clean
demo: $(VENV)/.installed-base          ## set up, score the demonstration slides, say where the report lies
	$(BIN)/wsi-her2 demo -o demo-out

test: check                            ## set up, lint, type-check, test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.installed-dev          ## lint, type-check, and see that nothing imports what it must not
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(VENV)/.installed-dev      ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

coverage: $(VENV)/.installed-dev       ## the tests with coverage of lines; fails below 90 %
	COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-report=html

mutation: $(VENV)/.installed-dev       ## mutants of the rule, the grid and the store: how many do the tests notice; minutes
	$(BIN)/python -m pip install --quiet "mutmut>=3.8"
	$(BIN)/mutmut run

docs: $(VENV)/.installed-docs          ## the documentation as a site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

cards: $(VENV)/.installed-base         ## model cards, from what the classifiers say of themselves
	$(BIN)/wsi-her2 models cards -o docs/model_cards.md

wheel-test: $(VENV)/.installed-dev     ## the wheel, installed alone elsewhere: does every command of it run; minutes
	PYTHON="$(PYTHON)" TESTER="$(CURDIR)/$(BIN)/python" .ci/wheel-test

lock: $(VENV)/bin/python               ## requirements.lock: the versions of a base install into an empty environment
	PYTHON="$(PYTHON)" .ci/lock

FUZZ_COUNT ?= 2000
FUZZ_SEED ?= 0
fuzz: $(VENV)/.installed-dev           ## hostile files through what a user would run; FUZZ_COUNT=2000 FUZZ_SEED=0
	$(BIN)/python -m tests.fuzz $(FUZZ_COUNT) --seed $(FUZZ_SEED) --keep fuzz-out --table docs/fuzz.md

bench: $(VENV)/.installed-dev          ## how much work a patch and a slide are on this machine; forty minutes
	$(BIN)/python benchmarks/pipeline.py -o bench-out --table docs/benchmark.md

bench-sampling: $(VENV)/.installed-dev ## adaptive sampling against full runs on 40 digital slides; half an hour
	$(BIN)/python benchmarks/adaptive_sampling.py -o bench-out/sampling --table docs/sampling.md

bench-scale: $(VENV)/.installed-dev    ## ten thousand simulated slides through schedule and tables; ten minutes
	$(BIN)/python benchmarks/scale.py -o bench-out/scale --table docs/simulated_run.md

bench-review: $(VENV)/.installed-dev   ## how fast the review pages answer, on a large slide; ten minutes
	$(BIN)/python benchmarks/review.py -o bench-out/review --table docs/review_speed.md

bench-peers: bench                     ## the same patches through other tools, 20 GB of environments; another hour or more
	$(BIN)/python benchmarks/peers.py bench-out/slides/large-16-18.tif -o bench-out/peers --table docs/peers.md

weights: $(VENV)/.installed-dev        ## train the networks that ship, measure them; four to six hours on two cores
	for part in phantoms:pruneff4 phantoms-gain:pruneff4-gain phantoms-crops:pruneff4-crops phantoms-whole:pruneff4-whole; do \
	  $(BIN)/wsi-her2 train pruneff4-$${part%%:*} -o trainings/$${part##*:} || exit 1; done
	for part in phantoms:ather2 phantoms-gain:ather2-gain phantoms-slides:ather2-slides; do \
	  $(BIN)/wsi-her2 train ather2-$${part%%:*} -o trainings/$${part##*:} || exit 1; done
	$(BIN)/python benchmarks/classifiers.py trainings/pruneff4-whole/bundle trainings/ather2-slides/bundle \
	  -o trainings/measured --table docs/classifiers.md --figure docs/classifiers.jpg --annotate trainings/bundles

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-base: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.installed-base

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@ $(VENV)/.installed-base

clean:
	rm -rf $(VENV) demo-out bench-out fuzz-out site htmlcov .coverage \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
