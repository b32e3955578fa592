"""Clusterers that find flat pieces (lines, planes, subspaces) instead of round blobs."""
