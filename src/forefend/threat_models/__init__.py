"""Threat models: sets of allowed images around each clean image."""
