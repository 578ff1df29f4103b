"""Logging and workers."""
