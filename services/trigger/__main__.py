"""`python -m services.trigger`: the trigger alone."""

from services.trigger.build import build
from shared.process import run_alone

run_alone(build)
