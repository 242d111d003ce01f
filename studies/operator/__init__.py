"""When is the operator head worth it, and does its network earn its place?"""

from studies.operator.figures import figure as figure
from studies.operator.measure import PRESETS as PRESETS
from studies.operator.measure import run as run
from studies.operator.report import SENTENCES as SENTENCES
from studies.operator.report import outcomes as outcomes
