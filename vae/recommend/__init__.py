"""Recommendations for raw histories, similar items, and the export of a model for serving."""
