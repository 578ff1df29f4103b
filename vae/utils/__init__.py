"""What any program of several workers needs: log, console, files, signals, workers, watchdog."""
