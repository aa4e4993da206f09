# make demo    see the main job done, on this machine alone
# make test    the whole test suite
#
# Each makes what it needs in .venv first, with the first Python of 3.11 or later that is found, or with PYTHON=/path/to/python.
# PYTEST_ARGS="-k refresh -x" goes to pytest. REQUIRE_INTEROP=1 makes a missing interop server a failure, not a skip.

PYTHON ?= $(shell for python in python3.11 python3 python3.14 python3.13 python3.12 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip -qq --disable-pip-version-check install
SETTINGS := setup.cfg setup.py pyproject.toml
OIDC_PROVIDER := tests/interop/oidc_provider
GLEWLWYD := tests/interop/.glewlwyd
REDIS := tests/interop/.redis
FUZZ_CASES ?= 1000000
SOAK_SECONDS ?= 60
SOAK_KILLS ?= 300
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test cover lint format type docs fuzz soak bench dist changes interop-servers clean

help:
	@echo "make demo     run the demonstration"
	@echo "make test     run the whole test suite"
	@echo "make cover    the same, with coverage and its limits"
	@echo "make lint     ruff; 'make format' repairs what it can"
	@echo "make type     mypy over package, tests and docs code"
	@echo "make docs     the documentation and its doctests, warnings as errors"
	@echo "make fuzz     $(FUZZ_CASES) hostile cases of each kind (FUZZ_CASES=...)"
	@echo "make soak     long runs: interleavings, many processes, kills, leaks (SOAK_SECONDS=... SOAK_KILLS=...)"
	@echo "make bench    the benchmarks, side by side with peers, in .venv-bench"
	@echo "make dist     sdist and wheel in dist/"
	@echo "make changes  how the change notes will read"
	@echo "make clean    remove all that the others made"

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later was found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

# One stamp for each set of requirements, so that the demo doesn't wait for the tools of the tests.
$(VENV)/.package: $(VENV)/.made $(SETTINGS)
	@$(BIN)/python $(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	@$(BIN)/python $(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.tools: $(VENV)/.test
	@$(BIN)/python $(PIP_INSTALL) --editable '.[test,lint,docs,dist,changes]'
	@touch $@

demo: $(VENV)/.package
	@$(BIN)/python -m aiohttp_oauth_middleware demo

test: $(VENV)/.test interop-servers
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

cover: $(VENV)/.test interop-servers
	@$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)
	@$(BIN)/python .ci/coverage_gate.py

lint: $(VENV)/.tools
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

format: $(VENV)/.tools
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

type: $(VENV)/.tools
	@$(BIN)/mypy --no-error-summary

docs: $(VENV)/.tools
	@$(BIN)/sphinx-build -W -n --keep-going -q -b html docs docs/_build/html
	@$(BIN)/sphinx-build -W -n --keep-going -q -b doctest docs docs/_build/doctest
	@for page in README.rst CHANGES.rst CONTRIBUTING.rst; do \
		$(BIN)/python -m docutils --halt=warning $$page docs/_build/page.html || exit 1; done

fuzz: $(VENV)/.test
	@FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m tests.fuzz

# A hundred times what the suite does, and what it can't do at all: some hours.
soak: $(VENV)/.test interop-servers
	@SEEDS=1000 $(BIN)/python -m pytest --timeout=0 tests/faults/test_await_points.py tests/property/test_single_flight.py
	@SCHEDULES=100000 FORKS=10000 REFRESHES=100000 $(BIN)/python -m pytest --timeout=0 \
		tests/property/test_schedules.py tests/faults/test_forks.py tests/faults/test_leaks.py
	@$(BIN)/python -m tests.soak $(SOAK_SECONDS) $(SOAK_KILLS)
	@G_05_SECONDS=60 $(BIN)/python -m pytest --timeout=0 -s tests/interop/test_redis_processes.py

bench: .venv-bench/.installed
	@.venv-bench/bin/python -m tests.bench

.venv-bench/.installed: $(VENV)/.made $(SETTINGS) tests/bench/requirements.txt
	@$(BIN)/python -m venv --clear .venv-bench
	@.venv-bench/bin/python $(PIP_INSTALL) --editable . --requirement tests/bench/requirements.txt
	@touch $@

dist: $(VENV)/.tools
	@rm -rf dist build
	@$(BIN)/python -m build --outdir dist . > $(VENV)/dist.log 2>&1 || { cat $(VENV)/dist.log >&2; exit 1; }
	@ls dist

changes: $(VENV)/.tools
	@$(BIN)/towncrier build --draft --version "$$($(BIN)/python -c 'import aiohttp_oauth_middleware as a; print(a.__version__)')"

# What can't be had here the tests go without, and say so, unless REQUIRE_INTEROP=1.
interop-servers:
	@if command -v npm >/dev/null; then $(MAKE) -s $(OIDC_PROVIDER)/node_modules/.installed \
		|| { echo "INTEROP: oidc-provider could not be installed" >&2; test "$(REQUIRE_INTEROP)" != 1; }; fi
	@if command -v apt-get >/dev/null; then $(MAKE) -s $(GLEWLWYD)/.unpacked \
		|| { echo "INTEROP: glewlwyd could not be unpacked" >&2; test "$(REQUIRE_INTEROP)" != 1; }; fi
	@if command -v apt-get >/dev/null && ! command -v redis-server >/dev/null; then $(MAKE) -s $(REDIS)/.unpacked \
		|| { echo "INTEROP: redis-server could not be unpacked" >&2; test "$(REQUIRE_INTEROP)" != 1; }; fi

$(OIDC_PROVIDER)/node_modules/.installed: $(OIDC_PROVIDER)/package.json $(OIDC_PROVIDER)/package-lock.json
	@cd $(OIDC_PROVIDER) && npm ci --silent --no-audit --no-fund
	@touch $@

$(GLEWLWYD)/.unpacked: tests/interop/unpack
	@tests/interop/unpack .glewlwyd glewlwyd dbconfig-no-thanks
	@touch $@

$(REDIS)/.unpacked: tests/interop/unpack
	@tests/interop/unpack .redis redis-server
	@touch $@

clean:
	@rm -rf $(VENV) .venv-bench .venv-aiohttp-* build dist *.egg-info docs/_build htmlcov .coverage .coverage.* \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache $(OIDC_PROVIDER)/node_modules $(GLEWLWYD) $(REDIS)
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
