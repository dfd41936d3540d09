"""What only a GPU can settle: `python -m benchmarks gpu`. One file a section, each run in a process of its own."""
