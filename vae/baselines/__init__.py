"""What a model has to beat, in NumPy and SciPy alone."""
