"""`python -m services.analyzer`: the analyzer alone."""

from services.cli import run_service

run_service("analyzer")
