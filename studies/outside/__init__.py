"""What happens outside the family: certified solves of systems a network was not trained on."""

from studies.outside.figures import figure as figure
from studies.outside.measure import PRESETS as PRESETS
from studies.outside.measure import SENTENCES as SENTENCES
from studies.outside.measure import outcomes as outcomes
from studies.outside.measure import run as run
