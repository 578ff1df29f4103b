"""Ranking metrics of Liang et al. (2018), in plain NumPy and SciPy."""
