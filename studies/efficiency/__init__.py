"""How cheap training gets: normalized_mse on the frozen test set against the floating-point operations of training."""

from studies.efficiency.figures import figure as figure
from studies.efficiency.measure import PRESETS as PRESETS
from studies.efficiency.measure import SENTENCES as SENTENCES
from studies.efficiency.measure import outcomes as outcomes
from studies.efficiency.measure import run as run
