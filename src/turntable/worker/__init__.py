"""What runs inside a method's environment: Python ≥ 3.8 and NumPy, nothing else.

This package imports nothing of the rest of Turntable. It also defines what crosses the border between a
supervisor and a worker (cameras, views, messages, the PNG and PLY files), so the rest may import those
definitions from here; the worker itself is only ever talked to by messages and files.
"""
