# make demo   fine-tune the shipped drawings three ways at once; the run lands in runs/
# make test   every notebook, then tests/
# make portable  both again under settings that make this processor calculate like others; about 70 minutes on two cores
# make sync   the notebooks are the source: cleaning and exporting them must change nothing
# make readme README.md from nbs/index.ipynb
# make bench  the accuracy in README.md, on sets of five kinds: about three hours on two cores. SETS is a folder with aircraft/, dtd10/
#             and fashion-mnist/; clip art and icons are Debian packages, which the error names if one is missing
# make speed  time and memory against standard fine-tuning, separate runs and plain fastai; a quarter of an hour on two cores that do nothing else
# make cpu    the larger comparison of the study wing, about an hour and a half on two cores
# soak   the long campaigns: killed runs, hostile files, property tests, load; records in bench/soak, about an hour and a half on two cores
# newest the tests with the newest fastai, in .venv-newest; another Python: make newest PYTHON=python3.13 ENV=.venv-3.13
# ray    installs ray as well, and runs the tests that need a cluster; two of its workers are killed
# docs   the notebooks as a static site in _site/
# bench and cpu go on where they were interrupted, and run nothing that has a record; speed measures anew.
# The first call makes a virtual environment in .venv; later calls install nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin

.PHONY: demo test portable sync bench speed cpu readme clean soak newest ray docs

.venv/ready: setup.py settings.ini
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/ready
	.venv/bin/amf_train

test: .venv/ready
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist worksteal tests

portable: .venv/ready
	PATH="$(BIN):$$PATH" python tests/portable.py

sync: .venv/ready
	PATH="$(BIN):$$PATH" sh -c 'nbdev_clean && nbdev_export'
	git diff --exit-code

readme: .venv/ready
	.venv/bin/python bench/readme.py

SETS ?= $(HOME)/sets
bench: .venv/ready
	.venv/bin/amf_bench run kinds --out bench/kinds --workers 2 --path $(SETS)

speed: .venv/ready
	.venv/bin/amf_bench speed --out bench/speed

cpu: .venv/ready
	.venv/bin/amf_bench run cpu --out bench/cpu --workers 2

soak: .venv/ready
	.venv/bin/python tests/soak/kills.py --n 30 --out bench/soak/kills.json
	.venv/bin/python tests/soak/fuzz_models.py --n 20000
	.venv/bin/python tests/soak/fuzz_images.py --n 5000
	.venv/bin/python tests/soak/frozen.py
	.venv/bin/python tests/soak/load.py
	.venv/bin/python tests/soak/processes.py --out bench/soak/processes.json
	.venv/bin/python tests/soak/sharing.py --out bench/soak/sharing.json
	.venv/bin/python tests/soak/explorer.py --out bench/soak/explorer.json

ray: .venv/ready
	.venv/bin/python -m pip install --quiet -e '.[ray]'
	.venv/bin/python -m pytest -q tests/test_ray.py

ENV ?= .venv-newest
newest:
	test -x $(ENV)/bin/python || $(PYTHON) -m venv $(ENV)
	$(ENV)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[test]'
	PATH="$(CURDIR)/$(ENV)/bin:$$PATH" OMP_NUM_THREADS=1 python tests/versions.py

.venv/docs: .venv/ready
	.venv/bin/python -m pip install --quiet -e '.[docs]'
	touch $@

docs: .venv/docs
	PATH="$(BIN):$$PATH" python docs/build.py
	PATH="$(BIN):$$PATH" python docs/check.py

clean:
	rm -rf .venv build dist *.egg-info
