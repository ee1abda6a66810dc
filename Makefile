# `make demo` trains the digits example, `make test` passes the tests; each makes what it needs first.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
BIN := .venv/bin
python = $(firstword $(shell python$(1) -c 'import sys; print(sys.executable)' 2>/dev/null) $(wildcard $(PYENV_ROOT)/versions/$(1).*/bin/python))
READY := .venv/.ready
# the other Pythons that this machine has; a shim of pyenv's may stand for one that is not switched on
OTHERS := $(foreach version,3.12 3.13,$(if $(call python,$(version)),$(version)))
NNI := src/shoal/compat/nni/path

.DEFAULT_GOAL := help
.PHONY: help demo test test-here test-cluster test-others soak check format bench screenshots clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 14

demo: $(READY) ## train the digits example, and see what came out (a minute; the first time, installs)
	@rm -rf build/demo && mkdir -p build && cp -R examples/digits-pytorch build/demo
	@SHOAL_HOME="$(CURDIR)/build/demo/experiments" $(BIN)/shoal run build/demo/config.yml --control 2 --seed 3
	@printf '\nLook around in it:\n  export SHOAL_HOME=build/demo/experiments PATH="$$PWD/.venv/bin:$$PATH"\n'
	@printf '  shoal status; shoal lineage; shoal trials; shoal log\n'

# compiled once: hundreds of processes import it
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY) ## pass the tests, four at a time: many wait for a process
	@$(MAKE) --no-print-directory -j 2 test-here test-cluster

# after those on Ray where both want a processor: a node that cannot answer is taken for dead
test-here:
	nice $(BIN)/pytest -n 3 --dist worksteal --ignore tests/cluster

# all with one Ray, which takes seconds to begin; shown when it is over, not in between
test-cluster:
	@mkdir -p build
	$(BIN)/pytest tests/cluster > build/cluster.log 2>&1; code=$$?; cat build/cluster.log; exit $$code

test-others: $(OTHERS:%=test-on-%) ## the tests that need no framework, on the other Pythons that are here
	@echo "tried on: $(or $(OTHERS),none)"

test-on-%: build/python%/ready
	nice build/python$*/bin/pytest -n 3 --dist worksteal

.PRECIOUS: build/python%/ready
build/python%/ready: pyproject.toml
	"$(call python,$*)" -m venv build/python$*
	build/python$*/bin/python -m pip install --quiet --editable '.[test]'
	@touch $@

soak: $(READY) build/azurite ## the tests that are more of the same kind, and take long
	$(BIN)/pytest -n 3 -m soak

# Azure's emulator: without npm, its tests are skipped
build/azurite:
	if command -v npm; then npm install --silent --no-fund --prefix $@ azurite@3.37.0; fi

check: $(READY) ## ruff, mypy --strict, the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	for example in examples/*/main.py; do MYPYPATH=$(NNI):src $(BIN)/mypy "$$example" || exit 1; done
	$(BIN)/lint-imports --verbose > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

format: $(READY) ## what ruff can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## the figures of bench/README.md, measured here
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/trainables.py
	$(BIN)/python bench/cluster.py
	$(BIN)/python bench/simulated.py
	$(BIN)/python bench/page.py

screenshots: demo ## docs/screenshots/ anew, from what `make demo` has trained
	$(BIN)/python docs/screenshots.py build/demo/experiments

clean: ## all that was made here, the environment too
	rm -rf .venv build dist

# torch first and by its exact version, which a registry for machines without a GPU may have as a
# small wheel; asked for loosely it brings gigabytes of CUDA.
$(READY): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "shoal needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
