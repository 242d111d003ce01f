"""Distances from DEER and relaxation times from impedance: the shipped networks against the methods of their fields."""

from studies.instruments.figures import figure as figure
from studies.instruments.measure import PRESETS as PRESETS
from studies.instruments.measure import run as run
from studies.instruments.report import SENTENCES as SENTENCES
from studies.instruments.report import outcomes as outcomes
