"""A trained model at work: loading, evaluating, blending and timing it."""
