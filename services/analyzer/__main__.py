"""`python -m services.analyzer`: the analyzer alone."""

from services.analyzer.build import build
from shared.process import run_alone

run_alone(build)
