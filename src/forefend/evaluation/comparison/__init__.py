"""Comparison of a defense with baselines at equal training compute."""
