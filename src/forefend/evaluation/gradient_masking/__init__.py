"""Checks for signs of gradient masking."""
