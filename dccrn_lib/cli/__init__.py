"""The command line: ``python -m dccrn_lib COMMAND``."""
