"""What a GPU or a TPU computes, and how fast: `python -m benchmarks.accelerator`."""
