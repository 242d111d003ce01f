"""Where a learned solver wins on noisy, ill-posed systems, and where it does not: all families, priors and levels."""

from studies.noisy.figures import figure as figure
from studies.noisy.measure import PRESETS as PRESETS
from studies.noisy.measure import run as run
from studies.noisy.report import SENTENCES as SENTENCES
from studies.noisy.report import outcomes as outcomes
