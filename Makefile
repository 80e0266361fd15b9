# make demo      the five stages on a small simulated world (CPU)
# make test      lint (style, import rules, types) and all tests
# make weights   the weights that the demo begins with, once more (CPU, about an hour)
# Each sets up .venv first; once it matches the lock, set-up costs nothing.
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTHON := $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo weights test lint clean

setup: $(READY)

# torch first, with its own dependencies (from the public registry: the CUDA build); the rest exactly as locked.
# --no-deps: mmdet3d's metadata asks for open3d and mmcv-lite's for a second OpenCV; nothing here uses either.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "geomim needs Python 3.11 or 3.12 on the PATH; none was found."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock torch
	$(BIN)/pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	$(BIN)/geomim run --config configs/demo.yaml

weights: $(READY)
	$(BIN)/geomim run --config configs/weights-teacher.yaml --to fit --root artifacts/weights
	$(BIN)/geomim run --config configs/weights-backbone.yaml --to pretrain --root artifacts/weights
	cp artifacts/weights/fit/*/detector.safetensors weights/teacher.safetensors
	cp artifacts/weights/pretrain/*/backbone.safetensors weights/backbone.safetensors

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports
	$(BIN)/mypy

# One thread each: two teams of threads on the same cores would stand in each other's way. Bytecode is kept: hundreds of
# processes read the same modules. How many processes share the tests, and in which order: tests/conftest.py.
test: $(READY) lint
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder

clean:
	rm -rf $(VENV) artifacts data
