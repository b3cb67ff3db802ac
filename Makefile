# The one task runner. `make help` lists what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
# Tests run in this many processes; those marked `real` stay together by their file.
JOBS ?= 2
# pip compiles on one core, compileall on all. Some packages ship templates that are no Python.
PIP_INSTALL := -m pip install -q --no-compile
COMPILE := -m compileall -q -j 0
# Folders that hold Python of ours, as far as they exist.
CODE := agent detectors retrain exporters tests \
    $(sort $(patsubst %/,%,$(dir $(wildcard benchmarks/*.py examples/*.py))))
# One environment per real model server: tests/servers/NAME.txt becomes .venv-servers/NAME.
SERVERS := $(patsubst tests/servers/%.txt,.venv-servers/%/.installed,$(wildcard tests/servers/*.txt))
# One environment per peer of the benchmarks of detection: benchmarks/peers/NAME.txt likewise.
PEERS := $(patsubst benchmarks/peers/%.txt,.venv-peers/%/.installed,$(wildcard benchmarks/peers/*.txt))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup fmt lint type check test deep bench bench-detection demo lock system servers \
    peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv from the lock file; quick when nothing changed

# torch stays out of the lock file (its head says why), so constraints.txt holds it instead.
# Remora itself goes in without resolving: everything it needs is in the lock, and pip checks that.
$(VENV)/.installed: $(LOCK) constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --no-deps --require-hashes -r $(LOCK)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt torch
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@$(BIN)/python $(COMPILE) $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

lock: ## resolve the dependencies of pyproject.toml again into the lock file
	test -x $(BIN)/pip-compile || { $(PYTHON) -m venv $(VENV) && $(BIN)/python $(PIP_INSTALL) pip-tools; }
	$(BIN)/python tests/lock.py $(LOCK)

fmt: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lint: setup ## style, formatting and the import layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-logo

type: setup ## mypy, strict
	$(BIN)/mypy $(CODE)

check: lint type ## lint, type and the quick tests
	$(BIN)/pytest -q -n $(JOBS) -m "not slow and not real"

test: check system servers ## everything, real servers included; installs what that needs
	$(BIN)/pytest -q -n $(JOBS) -m "slow and not real"
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile -m real

deep: setup ## the property tests again, for long
	HYPOTHESIS_PROFILE=deep $(BIN)/pytest -q -n $(JOBS) -m "not real" --timeout 3600

bench: setup system ## every benchmark against its named peer, but for those of detection
	@for file in $(filter-out $(BENCH_DETECTION:%=benchmarks/%.py) benchmarks/pictures.py, \
	    $(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

# Each writes its figures to build/bench and goes on where another failed; the last line says which.
BENCH_DETECTION := detection detection_month detection_delay detection_correlation \
    detection_concept estimation detection_real_rows detection_agent

bench-detection: setup peers ## the tables of docs/detection.md: speed, false alarms, delays, quality
	@mkdir -p build/bench; missed=""; \
	for name in $(BENCH_DETECTION); do \
	    echo "== benchmarks/$$name.py"; rm -f build/bench/$$name.json; \
	    $(BIN)/python benchmarks/$$name.py --json build/bench/$$name.json \
	        || missed="$$missed $$name"; \
	done; \
	for name in $(BENCH_DETECTION); do \
	    case " $$missed " in *" $$name "*) say=MISSED;; *) say=ok;; esac; \
	    printf '  %-24s%s\n' $$name $$say; \
	done; \
	$(BIN)/python benchmarks/pictures.py --tables; \
	test -z "$$missed"

demo: setup ## the main job end to end, on embedded defaults
	$(BIN)/remora demo

system: ## system packages for the real tests, where this machine allows it
	@sh tests/install_system.sh

servers: $(SERVERS) ## environments of the real model servers

# Where a server cannot be installed its tests are skipped, unless CI is set.
.venv-servers/%/.installed: tests/servers/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	if $(@D)/bin/python $(PIP_INSTALL) -r $<; then \
	    $(@D)/bin/python $(COMPILE) $(@D)/lib >/dev/null 2>&1; touch $@; \
	else rm -rf $(@D); test -z "$$CI"; fi

peers: $(PEERS) ## environments of the libraries that detection is measured against

# A peer that cannot be installed fails its benchmark: a table without it would say nothing.
.venv-peers/%/.installed: benchmarks/peers/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) -r $< || { rm -rf $(@D); exit 1; }
	@$(@D)/bin/python $(COMPILE) $(@D)/lib >/dev/null 2>&1 || true
	@touch $@

clean: ## remove what make and the tools left here
	rm -rf $(VENV) .venv-servers .venv-peers build dist .mypy_cache .pytest_cache .ruff_cache \
	    .hypothesis .import_linter_cache
