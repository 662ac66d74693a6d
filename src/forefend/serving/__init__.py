"""A defended classifier as an HTTP service; imports nothing."""
