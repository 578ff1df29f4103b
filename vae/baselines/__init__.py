"""Baselines to compare the model with, in NumPy and SciPy alone."""
