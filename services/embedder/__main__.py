"""`python -m services.embedder`: the embedder alone."""

from services.cli import run_service

run_service("embedder")
