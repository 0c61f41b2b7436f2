# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.belvedere-installed
PROTOS := $(wildcard proto/belvedere/v1/*.proto)
STUBS  := libs/belvedere/v1/.generated
# Files of tests run beside each other, three on two cores: most wait for other processes most of the time. The tests of one
# file stay together and in order: they share what they start.
BESIDE ?= --numprocesses $(shell echo $$(($$(nproc) * 3 / 2))) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup proto demo test bench lint clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STUBS) ## a .venv with belvedere in it, and the generated protobuf code

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Belvedere needs Python 3.11 or newer: set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "This Python cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing Belvedere and what it needs (about 600 MB; minutes, the first time)"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --constraint constraints.txt --editable '.[cloud,edge,openvino,onnx,cli,dev]'
	@touch $@

$(STUBS): $(STAMP) $(PROTOS)
	@rm -rf libs/belvedere/v1 && mkdir -p libs/belvedere/v1
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=libs --grpc_python_out=libs --mypy_out=quiet:libs --mypy_grpc_out=quiet:libs $(PROTOS)
	@touch libs/belvedere/v1/__init__.py libs/belvedere/v1/py.typed $@

proto: $(STUBS) ## Python code from proto/

demo: setup ## the main job end to end; DEMO_SECONDS=30 DEMO_JSON=path CLIP=file CAMERA=rtsp://… (docs/demo.md)
	@$(BIN)/belvedere demo $(DEMO_ARGUMENTS)

test: setup ## every test; TESTS=tests/belvedere for some of them, DATABASE=postgresql for all of them on PostgreSQL, BESIDE= for one at a time
	$(BIN)/python -m pytest $(BESIDE) $(or $(TESTS),tests/system tests) $(if $(DATABASE),--database $(DATABASE))

bench: setup ## ours beside peers and limits (docs/performance.md); ONLY=F1,B2 BENCH_JSON=path
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(BENCH_JSON),--json $(BENCH_JSON))

lint: setup ## format, rules, types, who may import whom, proto/
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations --target=3.7- --exclude os.memfd_create libs/framelink libs/panoramasdk
	$(BIN)/buf lint

clean: ## removes what was built and cached, not .venv
	rm -rf .demo .cache build dist libs/belvedere/v1 .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
