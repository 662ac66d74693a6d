"""Random numbers, precision, threads, files and progress of a computation."""
