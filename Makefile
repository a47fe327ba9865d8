# The first command after a clone may be any of these: each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Another interpreter that the slow tier also tests, where it is found.
NEWEST := $(shell for python in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python); do \
	$$python -c "" 2>/dev/null && { echo $$python; break; }; done)
NEWEST_VENV := .venv-newest
# What another Python, jax or jaxlib may change: imports, source and bytecode, messages, programs.
NEWEST_TESTS := $(addprefix tests/, test_import.py test_lazy_imports.py test_learning.py \
	test_training.py cli/test_cli.py compute config/test_config.py envs/test_envs.py \
	experiment/store experiment/test_resuming.py)

.PHONY: train test test-all test-newest check format docs bench profile clean

train: $(VENV)/.installed
	$(BIN)/purerl train $(ARGS)

test: $(VENV)/.installed
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

# Without XLA_FLAGS of the tests' own, programs are compiled as for users.
test-all: test
	$(BIN)/pytest -n 2 -m "slow and not as_users" $(ARGS)
	XLA_FLAGS= $(BIN)/pytest -n 2 -m as_users $(ARGS)
ifneq ($(NEWEST),)
	$(MAKE) test-newest
else
	@echo "python3.13 is not here: its tests were left out"
endif

test-newest: $(NEWEST_VENV)/.installed
	UNCHECKED_SHAPES=1 XLA_FLAGS= $(NEWEST_VENV)/bin/pytest -n 2 --dist loadfile -m "not slow" $(NEWEST_TESTS) $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/throughput.py $(ARGS)

profile: $(VENV)/.installed
	$(BIN)/python benchmarks/phases.py $(ARGS)

clean:
	rm -rf $(VENV) $(NEWEST_VENV) .venv-peers .pytest_cache site

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "purerl needs Python 3.11 or later; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

$(NEWEST_VENV)/.installed: pyproject.toml
	$(NEWEST) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	@touch $@
