# Everything is set up in .venv by the first target that needs it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test pytest slow lint docs wheel benchmark faults owner clean

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("unseen needs Python 3.11 or newer; run make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile --editable '.[dev,docs]'
	touch $@

demo: .venv/installed
	$(BIN)/unseen demo

test: lint pytest

pytest: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

slow: .venv/installed
	OMP_NUM_THREADS=1 UNSEEN_SLOW=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/mkdocs build --strict

wheel: .venv/installed
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

benchmark: .venv/installed
	$(BIN)/python -m benchmarks

owner:
	@test -n "$(NAME)" || { echo "make owner NAME=the account or organization on GitHub"; exit 1; }
	sed -i.old 's/OWNER/$(NAME)/g' pyproject.toml CITATION.cff conda/recipe.yaml
	rm pyproject.toml.old CITATION.cff.old conda/recipe.yaml.old

faults: .venv/installed
	$(BIN)/python -m faults

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
