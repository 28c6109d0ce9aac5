"""`python -m services.dashboard`: the dashboard alone."""

from services.dashboard.build import build
from shared.process import run_alone

run_alone(build)
