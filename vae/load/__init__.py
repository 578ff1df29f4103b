"""Data pipeline: read, filter, split, store, open and batch interactions."""
