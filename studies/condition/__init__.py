"""Limits: networks for families of ever larger condition numbers, and beyond them."""

from studies.condition.figures import figure as figure
from studies.condition.measure import PRESETS as PRESETS
from studies.condition.measure import run as run
from studies.condition.report import SENTENCES as SENTENCES
from studies.condition.report import outcomes as outcomes
