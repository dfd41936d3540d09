# Each target starts from a bare Debian machine with Python 3.11 or newer.
.PHONY: setup demo test null lint

setup:  ## make .venv with everything in it
	@tools/setup.sh

demo: setup  ## distil a small student on generated JPEGs, start to end
	.venv/bin/python launch/demo.py --out runs/demo

test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

null: setup  ## every method with every setting on the null device: an hour or two; PART=1/8 is an eighth of it
	PYTHONPATH=tests .venv/bin/python -m null_device.product --part $(or $(PART),1/1)

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
