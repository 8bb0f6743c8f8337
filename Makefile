# The two commands of the README are `make demo` and `make test`. Each sets up what it needs.
.PHONY: setup demo test lint bench bench-peers fuzz docs

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup lint
	.venv/bin/pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: setup
	.venv/bin/python -m tests.bench

bench-peers:
	@scripts/bench-peers

