"""One folder per service; `up.py` composes them in one process. `cli.py` is the command, `commands` do it."""
