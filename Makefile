PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What talks to the scripted model server, and can do so where it sends the least and refuses what real APIs refuse.
TURNS  := tests/acceptance tests/attachments tests/faults/test_models.py $(addprefix tests/assistant/test_, \
	guardrails_and_context.py mcp.py tools_that_fail.py privacy.py)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast faults mutants field wheel lowest upgrade canary citus hosted check docs bench pictures format lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.ready ## Make .venv with everything needed to run, test and check

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@echo "Installing into $(VENV), with what the tests need: once, a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# What only some targets need is installed by it, in a tenth of pip's time.
UV := .uv/bin/uv

$(UV):
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

run: setup ## Start the server with its own PostgreSQL: http://localhost:8000
	$(BIN)/chatkit-postgres serve $(ARGS)

test: setup ## Run the test-suite on a real PostgreSQL (make test ARGS="-k store")
	$(BIN)/python -m pytest $(ARGS)

test-fast: setup ## Run what takes about a minute: every room, without browser, servers, faults and random requests
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

FAULT_RUNS ?= 20
SERVER_FAULT_RUNS ?= 3
CROWDS ?= 2
# Two hundred answers at once need the machine for themselves, and would slow down what runs beside them. Of a choice of
# tests (-k) it may have none, which pytest says with 5.
CROWD := tests/faults/test_many_answers.py

faults: setup ## Run each fault twenty times, at random moments, and three times with a ChatKitServer (three times in make test)
	$(BIN)/python -m pytest tests/faults --ignore $(CROWD) --fault-runs $(FAULT_RUNS) --numprocesses 4 --dist worksteal $(ARGS)
	$(BIN)/python -m pytest tests/faults --ignore $(CROWD) --fault-runs $(SERVER_FAULT_RUNS) --numprocesses 4 --dist worksteal \
		--assistant tests.support.servers:ScriptedServer $(ARGS)
	$(BIN)/python -m pytest $(CROWD) --numprocesses 0 $(ARGS) || [ $$? -eq 5 ]
	[ $(CROWDS) = 1 ] || $(BIN)/python -m pytest $(CROWD) --numprocesses 0 --assistant tests.support.servers:ScriptedServer $(ARGS) || [ $$? -eq 5 ]

mutants: setup ## Break promises on purpose and see that the fault tests notice
	$(BIN)/python -m tests.faults.mutants

field: setup .field/.ready ## Answer through LiteLLM, llmock and aimock, by Mistral's rules, with models that send little and refuse much, and to Schemathesis; show traces in Phoenix; and read the manifests as Kubernetes does
	$(BIN)/python -m pytest tests/field --field .field $(ARGS)
	$(BIN)/python -m pytest --minimal-models --strict-models $(TURNS) $(ARGS) $(TURNS_ARGS)

FIELD := litellm llmock mistral schemathesis phoenix kubernetes

.field/.ready: $(UV) $(FIELD:%=tests/field/%-requirements.txt) tests/field/aimock-version.txt
	@echo "Installing into .field, each in an environment of its own: once, a minute or two"
	for name in $(FIELD); do \
		$(UV) venv --quiet --clear --python $(PYTHON) .field/$$name && \
		$(UV) pip install --quiet --python .field/$$name/bin/python -r tests/field/$$name-requirements.txt || exit 1; done
	npm install --silent --no-audit --no-fund --no-save --prefix .field/aimock @copilotkit/aimock@$$(cat tests/field/aimock-version.txt)
	touch $@

lowest: .lowest/.ready ## Run the tests of the store and of turns with the lowest versions that pyproject.toml allows
	.lowest/bin/python -m pytest tests/store tests/chat $(ARGS)

.lowest/.ready: $(UV) pyproject.toml
	$(UV) venv --quiet --clear --python $(PYTHON) .lowest
	$(UV) pip install --quiet --python .lowest/bin/python --resolution lowest-direct -e '.[server,files,embedded]'
	$(UV) pip install --quiet --python .lowest/bin/python hypothesis polyfactory pytest pytest-asyncio pytest-timeout pytest-xdist
	touch $@

wheel: setup .wheel/.ready ## Build the wheel, install it with the lock beside the checkout, and use it as a team does
	$(BIN)/python -m pytest tests/wheel --wheel .wheel $(ARGS)

.wheel/.ready: $(UV) $(VENV)/.ready requirements.lock README.md $(shell find chatkit_postgres migrations -type f -not -name '*.pyc')
	rm -rf .wheel && mkdir .wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir .wheel/dist .
	$(UV) venv --quiet --python $(PYTHON) .wheel/server
	$(UV) pip install --quiet --python .wheel/server/bin/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python .wheel/server/bin/python --no-deps .wheel/dist/*.whl
	$(UV) venv --quiet --python $(PYTHON) .wheel/store
	$(UV) pip install --quiet --python .wheel/store/bin/python .wheel/dist/*.whl
	touch $@

upgrade: setup .upgrade/.ready ## Upgrade from the version before and go back, under traffic, and measure each migration on 2 million messages
	$(BIN)/python -m pytest tests/upgrade --upgrade .upgrade --upgrade-rows 2000000 --upgrade-seconds 30 --numprocesses 0 $(ARGS)

# The commit must be in the history of the clone: a shallow one may not have it.
.upgrade/.ready: $(UV) $(VENV)/.ready tests/upgrade/previous-version.txt
	@echo "Installing the version before into .upgrade: once, a minute or two"
	rm -rf .upgrade && mkdir -p .upgrade/source
	git archive $$(cat tests/upgrade/previous-version.txt) | tar -x -C .upgrade/source
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir .upgrade/dist .upgrade/source
	$(UV) venv --quiet --python $(PYTHON) .upgrade/server
	$(UV) pip install --quiet --python .upgrade/server/bin/python --require-hashes -r .upgrade/source/requirements.lock
	$(UV) pip install --quiet --python .upgrade/server/bin/python --no-deps .upgrade/dist/*.whl
	touch $@

citus: setup ## Run the store's tests on a Citus cluster, in the database that CHAT_TEST_CITUS_URL names, and empty it
	$(BIN)/python -m pytest tests/cluster tests/store tests/search tests/limits tests/user_data/test_export_import.py \
		--numprocesses 0 -m "not random and not one_postgres" $(ARGS)

hosted: setup ## Import 1,000 threads and 20,000 items of hosted ChatKit, with kills (a tenth of them in make test)
	$(BIN)/python -m pytest tests/user_data/test_hosted.py -k from_the_api_after --hosted-threads 1000 --numprocesses 0 $(ARGS)

canary: setup ## Three marked users, 15,000 random requests: no mark reaches anybody else (500 in make test)
	$(BIN)/python -m pytest tests/canary --canary-requests 15000 --numprocesses 0 -s $(ARGS)

check: setup ## Format, lint, import contract, types, compose file, Dockerfile and the files of deploy/
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/compose.agent.yml
	$(BIN)/python -m pytest tests/deploy/test_files.py --quiet --numprocesses 0
	$(BIN)/hadolint Dockerfile examples/nextjs/Dockerfile

docs: setup .docs/.ready ## Build the documentation as a site in .docs/site: no link may be broken, no page outside of the order
	$(BIN)/python -m docs.reference_pages
	NO_MKDOCS_2_WARNING=1 .docs/venv/bin/mkdocs build --quiet
	$(BIN)/python -m pytest tests/site --site .docs/site --numprocesses 0 $(ARGS)

.docs/.ready: $(UV) docs/requirements.txt
	$(UV) venv --quiet --clear --python $(PYTHON) .docs/venv
	$(UV) pip install --quiet --python .docs/venv/bin/python -r docs/requirements.txt
	touch $@

bench: setup ## Measure turns, tokens and statements, as ratios on this machine (ARGS=load, wal, scale, followers, search, retention or limits)
	$(BIN)/python -m benchmarks $(ARGS)

pictures: setup ## Take the pictures of the playground that the README shows
	$(BIN)/python -m pytest tests/browser/test_access.py -k picture --pictures docs/pictures --numprocesses 0

format: setup ## Rewrite the files as the formatter wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Renew both lock files (needs uv)
	uv pip compile pyproject.toml --extra server --extra files --extra traces --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra server --extra files --extra embedded --extra traces --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o requirements-dev.lock
