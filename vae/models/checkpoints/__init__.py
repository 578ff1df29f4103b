"""What survives the process: the state, the folder of checkpoints, resuming and warm starts."""
