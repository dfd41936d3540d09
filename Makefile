# Each target starts from a bare Debian machine with Python 3.11 or newer.
.PHONY: setup demo test lint

setup:  ## make .venv with everything in it
	@tools/setup.sh

demo: setup  ## distil a small student on generated JPEGs, start to end
	.venv/bin/python launch/demo.py --out runs/demo

test: setup
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
