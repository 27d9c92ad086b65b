"""The command line: one small file per verb, no logic. The program is put together in ``_app``."""
