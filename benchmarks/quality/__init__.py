"""What can be said of every estimator: checks, hostile inputs, deviations, sizes. `python -m benchmarks.quality`."""
