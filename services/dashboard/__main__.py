"""`python -m services.dashboard`: the dashboard alone."""

from services.cli import run_service

run_service("dashboard")
