"""Tasks: what is asked of a method, and how the answer is scored. Knows nothing of processes."""
