# The two commands of the README are `make demo` and `make test`. Each sets up what it needs.
# PYTHON=/path/to/python3 chooses the Python that .venv is made with.
.PHONY: setup demo test lint bench bench-control bench-peers fuzz images reference docs e2e

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup lint
	.venv/bin/pytest -n 2 --dist loadgroup

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

# End to end in the cluster of KUBECONFIG, whose nodes have the images: docs/kind.md. For example: make e2e E2E="tests/e2e -k cni"
e2e: setup
	WEIR_TEST_CLUSTER=kubeconfig .venv/bin/pytest $(or $(E2E),tests/e2e)

# FUZZ_SECONDS for each target; atheris comes into an environment of its own.
fuzz: setup
	.venv/bin/uv run -q --no-sync --with atheris python tests/fuzz/run.py

# For example: make bench BENCH="--quick --only weir"
bench: setup
	.venv/bin/python -m tests.bench $(BENCH)

# One serving replica under 200 admissions a second and 2,000 config streams; needs kube-apiserver and etcd.
bench-control: setup
	PYTHONPATH=tests .venv/bin/python -m tests.bench.control $(BENCH)

bench-peers:
	@scripts/bench-peers

# With docker, buildah or podman; BASE=debian:trixie-slim@sha256:… pins the base image.
images:
	@scripts/images

# The pages that are made of what they are about: the custom resource definitions, and the contract with the sidecar.
reference: setup
	.venv/bin/python scripts/reference.py >docs/reference.md
	.venv/bin/python scripts/reference_config.py >docs/sidecar-config.md

# The site, into build/site; MkDocs Material comes into an environment of its own.
docs: setup
	UV_PROJECT_ENVIRONMENT=build/docs .venv/bin/uv sync -q --frozen --no-install-project --extra docs --python .venv/bin/python
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build
