"""The evidence page: what was measured of a run, on what, how, and what was not."""
