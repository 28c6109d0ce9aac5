"""`python -m services.embedder`: the embedder alone."""

from services.embedder.build import build
from shared.process import run_alone

run_alone(build)
