"""Captures: what was photographed. Knows nothing of methods."""
