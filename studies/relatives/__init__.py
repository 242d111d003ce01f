"""The closest relatives of the operator head, side by side on the same systems."""

from studies.relatives.figures import figure as figure
from studies.relatives.measure import PRESETS as PRESETS
from studies.relatives.measure import run as run
from studies.relatives.report import SENTENCES as SENTENCES
from studies.relatives.report import outcomes as outcomes
