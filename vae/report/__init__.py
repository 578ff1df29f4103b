"""Human-readable output in ``--results_dir``: metrics per epoch, curves, an HTML report."""
