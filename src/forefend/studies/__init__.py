"""The tables and figures of the five papers: what is trained, how it is attacked, and the papers' numbers."""
