# `make` prints the targets. `make run` and `make test` need only make and Python 3.11 to 3.13:
# each first brings .venv up to date with its lock, when the lock has changed.

PYTHON ?= python3
ARGS ?=
KILLS ?= 1000
BIN := .venv/bin
# Test modules side by side, one a core; more of them than four take more memory than they save time.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Locked for every platform at once, with a SHA-256 for every file that may be installed.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet

.PHONY: help run test check lint types slow torture bench lock clean venv venv-dev

help: ## Print these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: venv ## Run the pipeline; options go in ARGS, such as make run ARGS="--help".
	@$(BIN)/python -m flows.cli run $(ARGS)

test: venv-dev ## Run the tests that take seconds.
	@$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

slow: venv-dev ## Run the tests that take minutes: the full-size run, the UI in a browser.
	@$(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

torture: venv-dev ## Damage 10,000 entries, kill runs KILLS times (1000 unless said); takes hours.
	@HEADSTART_FUZZ=10000 HEADSTART_EDITS=1000 $(BIN)/python -m pytest -v -k "random or edit" \
		tests/test_artifacts_store.py tests/test_tasks_fingerprint.py
	@HEADSTART_KILLS=$(KILLS) $(BIN)/python -m pytest -v tests/test_faults.py $(ARGS)

check: lint types test ## Run lint, types and tests.

lint: venv-dev ## Check style and formatting.
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

types: venv-dev ## Check types.
	@$(BIN)/python -m mypy

bench: venv-dev ## Measure what is claimed about speed, into benchmarks/RESULTS.md.
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 \
		$(BIN)/python -m benchmarks.training $(ARGS)

lock: ## Resolve pyproject.toml into the lock files again (needs uv).
	@$(COMPILE) --extra install -o requirements.lock
	@$(COMPILE) --extra install --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## Remove the environment and all caches; the store of results stays.
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is a copy of all that was installed from, and where to: it is written last, so an
# interrupted install leaves none, and it is compared by content, not by time.
facts = { pwd; cat pyproject.toml $(1); }
current = [ -x $(BIN)/python ] && $(call facts,$(1)) | cmp -s - .venv/$(1).stamp

# The development lock holds everything in the other one, at the same versions.
venv:
	@$(call current,requirements-dev.lock) || { $(call install,requirements.lock); }

venv-dev:
	@$(call install,requirements-dev.lock)

supported = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
define install
$(call current,$(1)) || { set -e; \
	rm -f .venv/*.stamp; \
	$(BIN)/python -c 'import pip; $(supported)' 2>/dev/null || { \
		$(PYTHON) -c '$(supported)' || { \
			echo "headstart needs Python 3.11, 3.12 or 3.13; $(PYTHON) is: `$(PYTHON) --version 2>&1`."; \
			echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
			exit 1; \
		} >&2; \
		$(PYTHON) -m venv --clear .venv; \
	}; \
	echo "Installing $(1) into .venv; the first time takes a minute or more." >&2; \
	if command -v uv >/dev/null; then \
		pip="uv pip"; at="--python $(BIN)/python"; \
	else \
		pip="$(BIN)/python -m pip"; at=; \
	fi; \
	: "A lock is complete, and pip's hash mode refuses requirements with extras: no deps."; \
	$$pip install $$at --quiet --require-hashes --only-binary :all: --no-deps -r $(1); \
	$$pip install $$at --quiet --no-deps --no-build-isolation --editable .; \
	$(BIN)/python -m pip check; \
	$(call facts,$(1)) > .venv/$(1).stamp; \
}
endef
