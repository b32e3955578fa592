"""What every estimator shares: the border to the user's arrays, the one loop, blocks of rows, linear algebra."""
