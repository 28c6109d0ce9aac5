"""`python -m services.collector`: the collector alone."""

from services.collector.build import build
from shared.process import run_alone

run_alone(build)
