"""Turns: which run holds which device, and the supervisor that sees a run through. Knows nothing of images."""
