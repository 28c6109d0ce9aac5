"""`python -m services.collector`: the collector alone."""

from services.cli import run_service

run_service("collector")
