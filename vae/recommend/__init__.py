"""From a trained model to recommendations: for raw histories, for similar items, for a server."""
