"""Measurements beside alternatives, each in one run; ratios are what counts."""
