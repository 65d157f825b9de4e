"""What everything stands on: paths, files, errors, progress, processes, signals. Never imports torch."""
