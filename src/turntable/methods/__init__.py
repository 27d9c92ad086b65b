"""Methods: who answers. A method is a folder with a ``method.toml``; nothing of it runs when it is listed."""
