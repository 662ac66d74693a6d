"""Runs side by side: the same cells, what differs between them, and what cannot be compared."""
