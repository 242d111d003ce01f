"""What a token should be: columns, rows, columns with all of b, or single entries, at equal cost; and what it costs."""

from studies.encoding.figures import figure as figure
from studies.encoding.measure import PRESETS as PRESETS
from studies.encoding.measure import SENTENCES as SENTENCES
from studies.encoding.measure import outcomes as outcomes
from studies.encoding.measure import run as run
