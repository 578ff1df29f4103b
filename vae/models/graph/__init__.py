"""What TensorFlow computes: the model, its loss, the graphs and the session."""
