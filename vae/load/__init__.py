"""Everything before the graph: read, filter, split, store, open and batch interactions."""
