"""Randomness, precision, threads, files and progress: what runs a computation, without knowing of images."""
