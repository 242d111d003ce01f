"""The paper's table: the Transformer against LSTM and GRU on three boundary value problems, with other baselines."""

from studies.spectral.figures import figure as figure
from studies.spectral.measure import PRESETS as PRESETS
from studies.spectral.measure import run as run
from studies.spectral.report import SENTENCES as SENTENCES
from studies.spectral.report import outcomes as outcomes
