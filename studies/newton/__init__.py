"""How many iterations of Newton's method a network saves in l_p regression, against every classical method."""

from studies.newton.figures import figure as figure
from studies.newton.measure import PRESETS as PRESETS
from studies.newton.measure import run as run
from studies.newton.report import SENTENCES as SENTENCES
from studies.newton.report import outcomes as outcomes
