"""Which attention the paper's network needs, and what its heads look at."""

from studies.attention.figures import figure as figure
from studies.attention.measure import PRESETS as PRESETS
from studies.attention.measure import run as run
from studies.attention.report import SENTENCES as SENTENCES
from studies.attention.report import outcomes as outcomes
