"""The training loop and what may go wrong in it."""
