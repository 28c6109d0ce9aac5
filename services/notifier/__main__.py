"""`python -m services.notifier`: the notifier alone."""

from services.cli import run_service

run_service("notifier")
