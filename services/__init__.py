"""One folder per service; `up.py` composes them all in one process, `cli.py` is the command."""
