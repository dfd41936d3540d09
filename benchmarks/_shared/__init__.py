"""What several benchmarks need; a file beside this folder is a benchmark."""
