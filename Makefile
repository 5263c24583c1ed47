# Every task is listed by `make help` from the comment behind its name.
.DEFAULT_GOAL := help
.PHONY: help install run test test-slow test-redis bench soak up down lint types lock clean
BIN := .venv/bin
INSTALLED := .venv/.installed
TEST_WORKERS ?= 2
# Each test gets its own namespace on one shared stack, so files can run beside each other.
PYTEST := $(BIN)/billing dev exec -- $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile

help: ## list the tasks
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## create .venv with the locked packages (again when the locks change)

$(INSTALLED): requirements/dev.txt requirements/install.sh pyproject.toml
	@sh requirements/install.sh
	@touch $@

run: $(INSTALLED) ## run the whole pipeline on real servers and verify it (DEMO_SECONDS=30, DEMO_REPORT=path)
	@$(BIN)/billing demo

test: $(INSTALLED) ## run all tests but the slow ones, on services of their own
	@$(PYTEST) -m "not slow"

test-slow: $(INSTALLED) ## run the longer campaigns
	@$(PYTEST) -m slow || [ $$? -eq 5 ]  # 5: there is none

test-redis: $(INSTALLED) ## run whatever touches the balance store on Redis 7.4 instead of Valkey
	@BILLING_DEV_STORE=redis $(PYTEST) -m "not slow" tests/property tests/integration tests/system

bench: $(INSTALLED) ## measure consumers and admission on servers of their own (BENCH="--runs 5 --markdown")
	@$(BIN)/billing bench inflight $(BENCH)
	@$(BIN)/billing bench settle $(BENCH)
	@$(BIN)/billing bench admission $(BENCH)

soak: $(INSTALLED) ## a steady load with short dedupe windows: does anything grow? (SOAK_SECONDS=240)
	@$(BIN)/billing soak

up: $(INSTALLED) ## start services and consumers in the background and print their addresses
	@$(BIN)/billing dev up --consumers

down: $(INSTALLED) ## stop what `make up` started; its data stays
	@$(BIN)/billing dev down

lint: $(INSTALLED) ## check style, layers and generated schemas
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m schemas.generate --check

types: $(INSTALLED) ## check types
	$(BIN)/mypy

lock: $(INSTALLED) ## write the lock files and the jars' checksums anew (UPGRADE=1 takes newer versions)
	sh requirements/lock.sh

clean: ## stop the background stack and remove everything that make has made
	@if [ -x $(BIN)/billing ]; then $(BIN)/billing dev down --remove-data; fi
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
