"""One folder per service; `up.py` composes them in one process. `cli.py` names the `commands`."""
