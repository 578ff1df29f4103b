"""Any ratings file to interactions."""
