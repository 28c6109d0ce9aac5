"""What the command `feedback-loop` does, a module or a folder for each; `services/cli.py` names them all."""
