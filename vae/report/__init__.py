"""What a run leaves in ``--results_dir`` for people: figures by epoch, curves, a page on it all."""
