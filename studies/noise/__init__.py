"""Noise on A, on b, on both: networks trained with and without it against LU and the classical answers to noise."""

from studies.noise.figures import figure as figure
from studies.noise.measure import PRESETS as PRESETS
from studies.noise.measure import run as run
from studies.noise.report import SENTENCES as SENTENCES
from studies.noise.report import outcomes as outcomes
