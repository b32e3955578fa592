"""Mixture densities of low-rank components."""
