"""What pre-training on diffusion is worth for other families of which few systems are known."""

from studies.transfer.figures import figure as figure
from studies.transfer.measure import PRESETS as PRESETS
from studies.transfer.measure import run as run
