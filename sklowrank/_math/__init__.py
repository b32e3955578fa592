"""Mathematics that several methods share: plain functions of tensors and sparse matrices; they know no estimator."""
