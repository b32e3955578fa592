"""Scores for clusterings and for subspaces, and other plain functions that measure."""
