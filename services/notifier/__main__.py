"""`python -m services.notifier`: the notifier alone."""

from services.notifier.build import build
from shared.process import run_alone

run_alone(build)
