# Everything that a newcomer or a maintainer does, in one word each.
#   make demo    a whole study of four hospitals, in a few minutes
#   make test    lint, then every test (the longest few are make soak's)
# Both set the environment up first; a second run starts at once.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.accord-setup
# Two workers; what shares a long set-up stays together (tests/conftest.py).
WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder
# One thread of arithmetic each: two workers on two cores would wait for each other's threads.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

.PHONY: help setup demo sensors test lint format check coverage bench fuzz soak chain docs messages clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(STAMP) ## build .venv (pinned packages); instant when nothing changed

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh tests/federation/network/foreign/package-lock.json
	@sh scripts/setup.sh
	@touch $@

demo: setup ## watch a whole study: four hospitals, consent, privacy, rewards
	@$(BIN)/accord demo $(ARGS)

sensors: setup ## the same for three weather stations
	@$(BIN)/accord demo --sensors $(ARGS)

lint: setup ## ruff, formatting, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## lint, then every test but the soak's
	$(PYTEST) -m "not long" $(ARGS)

check: setup ## the tests alone, without lint
	$(PYTEST) -m "not long" $(ARGS)

coverage: setup ## the tests with their coverage, which takes half as long again
	$(PYTEST) --cov --cov-report=term $(ARGS)

bench: setup ## the benchmark tables of docs/benchmarks.md (long)
	$(BIN)/python tests/benchmarks/heart_splits.py $(ARGS)
	$(BIN)/python tests/benchmarks/privacy_on_real_data.py
	$(BIN)/python tests/benchmarks/training_speed.py
	$(BIN)/python tests/benchmarks/budget_ledger.py
	$(BIN)/python tests/benchmarks/time_to_stop.py
	$(BIN)/python tests/benchmarks/consent_registry.py
	$(BIN)/python tests/benchmarks/bad_line.py
	$(BIN)/python tests/benchmarks/shared_model.py
	$(BIN)/python tests/benchmarks/consent_web.py
	$(BIN)/python tests/benchmarks/attacks.py
	$(BIN)/python tests/benchmarks/valuation_speed.py
	$(BIN)/python tests/benchmarks/against_flower.py
	$(BIN)/python tests/benchmarks/against_flower.py --megabytes 100 --nodes 2 --rounds 2
	$(BIN)/python tests/benchmarks/stream_speed.py
	$(BIN)/python tests/benchmarks/first_round.py
	$(BIN)/python tests/benchmarks/lower_bound.py
	$(BIN)/python tests/benchmarks/families.py
	$(BIN)/python tests/benchmarks/stability.py
	$(BIN)/python tests/benchmarks/compression.py
	$(BIN)/python tests/benchmarks/panel_scoring.py

fuzz: setup ## a million hostile inputs, a million ledger steps, 100,000 markets (long)
	$(BIN)/python tests/fuzz/ledger_steps.py
	$(BIN)/python tests/fuzz/market_misreports.py
	$(BIN)/python -m pip install --quiet -c constraints.txt atheris
	$(BIN)/python tests/fuzz/coverage_guided.py

soak: setup ## a node killed 1,000 times, every durable step killed, 100 nodes that come and go (long)
	$(PYTEST) -m long
	$(BIN)/python tests/faults/node_kills.py $(ARGS)
	$(BIN)/python tests/faults/every_step.py
	$(BIN)/python tests/faults/many_nodes.py
	$(BIN)/python tests/faults/many_nodes.py --nodes 5 --processes 2 --rounds 200 --people 80 --count-noise 30 --deadline-s 5

chain: setup ## the claim tree and its contract, against OpenZeppelin's library and Vyper anew
	$(BIN)/python scripts/make_claim_assets.py
	$(BIN)/python -m pytest -q tests/federation/settlement tests/federation/cli/test_claim_tree_command.py
	git diff --exit-code --stat -- '*.vy' '*/settlement/*.json' '*/settlement/contract/*.json' tests/vectors/claim_trees.json

docs: setup ## write docs/reference/cli.md from the program; check every link
	$(BIN)/python scripts/make_cli_reference.py
	$(BIN)/python scripts/check_links.py

messages: setup ## write new messages into the catalogs of consent/language
	@$(BIN)/python scripts/update_catalogs.py

clean: ## remove what tools left behind (never .venv, never a study)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist .chain
