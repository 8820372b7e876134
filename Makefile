# make demo   fine-tune the shipped sample three ways at once; the run lands in runs/
# make test   every notebook, then tests/
# make sync   the notebooks are the source: cleaning and exporting them must change nothing
# make readme README.md from nbs/index.ipynb
# make bench  the numbers of README.md: five seeds against standard fine-tuning, about half an hour on two cores
# The first call makes a virtual environment in .venv; later calls install nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin

.PHONY: demo test sync bench readme clean

.venv/ready: setup.py settings.ini
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/ready
	.venv/bin/amf_train

test: .venv/ready
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 python -m pytest -q tests

sync: .venv/ready
	PATH="$(BIN):$$PATH" sh -c 'nbdev_clean && nbdev_export'
	git diff --exit-code

readme: .venv/ready
	.venv/bin/python bench/readme.py

bench: .venv/ready
	.venv/bin/python bench/foundation.py

clean:
	rm -rf .venv build dist *.egg-info
