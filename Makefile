# Everything runs in .venv, which the first target that needs it sets up.
PYTHON ?= python3
BIN := .venv/bin

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: help demo demo-pseudo-masks demo-segmentation test test-all lint format docs benchmark clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 22

demo: .venv/ready          ## train on the embedded data set, cluster, write heatmaps/, compare CAM and LPCAM
	$(BIN)/python train.py configs/shapes.py --workdir runs/demo
	$(BIN)/python infer.py --ckpt runs/demo --out heatmaps/

demo-pseudo-masks: demo    ## refine the demo's seeds, of CAM and of LPCAM, by the CRF and by IRN, and compare
	$(BIN)/python -m benchmarks.pseudo_masks configs/shapes_irn.py --ckpt runs/demo --maps heatmaps/ \
		--workdir runs/demo_refined -- --model.weights runs/demo

demo-segmentation: demo    ## the last step: train DeepLab on the demo's seeds, of CAM and of LPCAM, and compare
	$(BIN)/python -m benchmarks.segmentation configs/shapes_deeplab.py --maps heatmaps/ --workdir runs/demo_seg \
		--rows cam lpcam -- --model.weights runs/demo

test: .venv/ready-dev      ## run the tests
	$(PYTEST) -m "not rest and not optimized"

# What compares numbers is compiled with all optimizations, as users compile it. Some of the rest waits for time-outs.
test-all: .venv/ready-dev  ## run the rest: what takes long or needs a browser, and the numbers of optimized programs
	$(PYTEST) -n 4 -m "rest and not optimized"
	LPCAM_TEST_OPTIMIZED=1 $(PYTEST) -m optimized

lint: .venv/ready-dev      ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready-dev    ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready-docs     ## build the documentation as a site, site/index.html; a link that leads nowhere ends it
	JAX_PLATFORMS=cpu $(BIN)/python docs/site site

benchmark: .venv/ready-dev .venv-bench/ready ## time every stage beside its peers; fails when we got slower
	$(BIN)/python -m benchmarks

clean:           ## remove .venv and all results
	rm -rf .venv .venv-bench .bench runs heatmaps masks site

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lpcam_jax needs Python 3.11 or newer; set PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

.venv/ready-docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# The peers that benchmarks compare with, apart from everything else.
.venv-bench/ready: requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt || \
		for peer in $$(sed 's/ *#.*//' requirements-bench.txt); do \
			.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "no $$peer"; \
		done
	touch $@
