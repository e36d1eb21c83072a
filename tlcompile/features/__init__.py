"""Outputs of the frozen prefix, computed once for an image."""
