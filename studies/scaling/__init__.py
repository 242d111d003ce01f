"""How the time of a certified solve grows with n: against LAPACK, the strongest rivals and one pass over A."""

from studies.scaling.figures import figure as figure
from studies.scaling.measure import run as run
from studies.scaling.plan import PRESETS as PRESETS
from studies.scaling.report import SENTENCES as SENTENCES
from studies.scaling.report import outcomes as outcomes
