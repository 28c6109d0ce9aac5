"""`python -m services.trigger`: the trigger alone."""

from services.cli import run_service

run_service("trigger")
