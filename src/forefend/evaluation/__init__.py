"""Evaluation: attacks, corruptions, certificates, and checks of their results."""
