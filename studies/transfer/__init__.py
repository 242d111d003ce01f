"""What pre-training on diffusion is worth for other families of which few systems are known."""

from studies.transfer.figures import figure as figure
from studies.transfer.measure import PRESETS as PRESETS
from studies.transfer.measure import run as run
from studies.transfer.report import SENTENCES as SENTENCES
from studies.transfer.report import outcomes as outcomes
