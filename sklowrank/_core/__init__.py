"""The contract of every estimator: the border to the user's arrays, the one loop, blocks of rows, the fitted model."""
