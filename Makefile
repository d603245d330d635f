# `make train` and `make test` do all of the set-up themselves, once. ARGS="…" goes to the command that is run.
#
# Everything is relative to this folder, so that the project may live on any path and be called with `make -C`.

PYTHON ?= python3
ARGS ?=
PYTHON_HERE := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help train chat-demo test test-long bench reliability docs lint ci clean setup-base setup-test setup-long setup-docs setup-bench setup-dev

help:
	@echo 'make train      set up, then train on the sample corpus   (ARGS="--depth 6" for flags)'
	@echo 'make chat-demo  a base model, mid-training, SFT and a chat, on questions about Python'
	@echo 'make test       set up, then every test                   (ARGS="-k name" for pytest)'
	@echo 'make test-long  the same tests with many more cases'
	@echo 'make bench      side by side with other loaders           (ARGS="--smoke" for once, on little data)'
	@echo 'make reliability  which faults are survived, as docs/RELIABILITY.md   (ARGS="--long")'
	@echo 'make docs       guides and reference as pages, in site/'
	@echo 'make lint       formatting, clippy, rustdoc, ruff, mypy, stubtest'
	@echo 'make ci         what the checks on a change run: lint, test, bench --smoke'
	@echo 'make clean      remove .venv and everything built (not the data in NANOFAST_HOME)'

train: setup-base
	@$(PYTHON_HERE) -m nanofast.train $(ARGS)

chat-demo: setup-base
	@$(PYTHON_HERE) examples/chat_demo.py $(ARGS)

test: setup-test
	cargo test --locked
	$(PYTHON_HERE) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

test-long: setup-long
test-long: export NANOFAST_TEST_LONG = 1
test-long: export PROPTEST_CASES = 4096
test-long: test
	cargo test --locked --features remote --lib remote

bench: setup-bench
	$(PYTHON_HERE) -m pytest benches $(ARGS)

reliability: setup-test
	$(PYTHON_HERE) scripts/reliability.py $(ARGS)

docs: setup-docs
	$(PYTHON_HERE) -m mkdocs build --strict

lint: setup-dev
	cargo fmt --check
	cargo clippy --locked --all-targets --features python,remote -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --features remote --document-private-items
	$(PYTHON_HERE) -m ruff format --check
	$(PYTHON_HERE) -m ruff check
	$(PYTHON_HERE) -m mypy
	cd python && ../$(PYTHON_HERE) -m mypy.stubtest nanofast._nanofast

ci:
	.ci/run

clean:
	rm -rf .venv target python/nanofast/_nanofast.*.so python/nanofast/_nanofast.*.pyd
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis

setup-base: ; @$(call set-up)
setup-test: ; @$(call set-up,test)
setup-long: ; @$(call set-up,test examples)
setup-docs: ; @$(call set-up,docs)
setup-bench: ; @$(call set-up,bench)
setup-dev: ; @$(call set-up,test bench dev)

define set-up
command -v $(PYTHON) >/dev/null || { \
	echo 'set-up: $(PYTHON) not found; get Python 3.10 or newer: apt-get install python3 python3-venv, or python.org' >&2; \
	exit 1; }; \
$(PYTHON) scripts/setup.py $(1)
endef
