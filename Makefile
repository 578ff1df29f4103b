# Two commands set up a fresh machine: `make demo` and `make test`. `make help` lists the rest.
#
# Everything is installed into $(VENV), from the package registry alone and without root. A target
# installs what it needs: `make lint` no TensorFlow, `make test` no ONNX.

DEFAULT_TF := 2.21.0
TF ?= $(DEFAULT_TF)
VENV ?= $(if $(filter $(DEFAULT_TF),$(TF)),.venv,.venv-tf$(TF))
DEMO ?= demo

# The first Python that this TensorFlow has wheels for: 2.15 up to 3.11, 2.16 to 2.19 up to 3.12.
UP_TO_2_19 := $(filter 2.15.% 2.16.% 2.17.% 2.18.% 2.19.%,$(TF))
NEWEST_MINOR := $(if $(filter 2.15.%,$(TF)),11,$(if $(UP_TO_2_19),12,13))
HAS_WHEEL := 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $(NEWEST_MINOR)))'
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c $(HAS_WHEEL) 2>/dev/null && echo $$python && break; done)

# What another TensorFlow than the default changes in the requirements files: the TensorBoard of its number, and
# NumPy 1.26 for 2.15 to 2.19.
OTHER_TF := $(if $(filter $(DEFAULT_TF),$(TF)),,s/^tensorflow-cpu==.*/tensorflow-cpu==$(TF)/; \
	s/^tensorboard==.*/tensorboard==$(basename $(TF)).*/; $(if $(UP_TO_2_19),s/^numpy==.*/numpy==1.26.4/))

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two tests at a time; those of a group (MPI jobs, the exported model) run in turn in one process.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup
RUN_DEMO := $(BIN)/python main.py --dataset synthetic --data_dir $(DEMO) \
	--checkpoint_dir $(DEMO)/checkpoints --results_dir $(DEMO)/results --log_path $(DEMO)/vae_cf.log

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets install into one environment.
.NOTPARALLEL:

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: env ## Prepare a small built-in data set, train, test, show recommendations and their explanations
	$(BIN)/python prepare_dataset.py --dataset synthetic --scale demo --data_dir $(DEMO)
	$(RUN_DEMO) --train --test --epochs 60 --batch_size_train 512 --validation_step 10 --lr 0.001 \
		--total_anneal_steps 2000 --anneal_cap 0.2 --recommend --output $(DEMO)/recommendations.csv \
		--item_names $(DEMO)/synthetic/extracted/synthetic/movies.csv --explain 2

.PHONY: test
test: env horovod $(VENV)/.installed-dev ## Run the tests but the slow ones, in minutes
	$(PYTEST) -m "not slow"

.PHONY: test-all
test-all: env horovod $(VENV)/.installed-dev $(VENV)/.installed-test-all ## Run all tests and measure their coverage
	$(PYTEST) --cov

.PHONY: lint
lint: $(VENV)/.installed-lint $(VENV)/.installed-checkout ## Check style, spelling, types, shell scripts, the Dockerfile, tables of flags
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run scripts/*.sh
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/flag_table.py --check

.PHONY: format
format: $(VENV)/.installed-lint ## Put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: env
env: $(VENV)/.installed $(VENV)/.installed-checkout ## Create the environment that main.py runs in

.PHONY: dev
dev: env $(VENV)/.installed-dev $(VENV)/.installed-lint ## Add the tools for tests and lint to the environment

.PHONY: horovod
horovod: env ## Add Horovod, for several workers; built once, then kept in the user's cache
	scripts/install_horovod.sh $(BIN)/python

.PHONY: dllogger
dllogger: env $(VENV)/.installed-dllogger ## Add NVIDIA's dllogger, from GitHub, to write the log with

.PHONY: lock
lock: $(VENV)/.installed-audit ## Write requirements.lock: requirements.txt with all that it depends on, and hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock requirements.txt

.PHONY: audit
audit: $(VENV)/.installed-audit ## List known vulnerabilities of the packages that are installed by default
	$(BIN)/python scripts/audit.py

.PHONY: check-gpu-kernels
check-gpu-kernels: .venv-gpu-wheel/.installed ## Look up a GPU kernel for each operation of the graphs; installs a wheel of 600 MB
	PYTHONPATH=. .venv-gpu-wheel/bin/python scripts/check_gpu_kernels.py

.PHONY: clean
clean: ## Remove the environment and the demo's files
	rm -rf $(VENV) $(DEMO)

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "No Python that TensorFlow $(TF) has a wheel for: install Python 3.10 to 3.$(NEWEST_MINOR), or name one with 'make PYTHON=/path/to/python3.11'." >&2; exit 2; }
	@"$(PYTHON)" -c $(HAS_WHEEL) || { echo "TensorFlow $(TF) has no wheel for $$($(PYTHON) --version): use Python 3.10 to 3.$(NEWEST_MINOR), for example 'make PYTHON=python3.11'." >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot create an environment: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; exit 2; }
	@touch $@

$(VENV)/.installed: requirements.txt | $(VENV)/.created
	sed '$(OTHER_TF)' $< > $(VENV)/$<
	$(INSTALL) -r $(VENV)/$<
	@touch $@

# TensorFlow's wheel for GPUs, without the CUDA libraries: they are only needed to run a kernel.
.venv-gpu-wheel/.installed: requirements.txt
	"$(PYTHON)" -m venv .venv-gpu-wheel
	sed 's/^tensorflow-cpu==/tensorflow==/' $< > .venv-gpu-wheel/requirements.txt
	.venv-gpu-wheel/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-gpu-wheel/requirements.txt
	@touch $@

# The checkout itself on Python's path: scripts and benchmarks import the package from anywhere.
$(VENV)/.installed-checkout: pyproject.toml | $(VENV)/.created
	$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.installed-%: requirements-%.txt | $(VENV)/.created
	sed '$(OTHER_TF)' $< > $(VENV)/$<
	$(INSTALL) -r $(VENV)/$<
	@touch $@
