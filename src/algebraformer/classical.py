"""Earlier names of modules of `algebraformer.numerics` and, in a checkout, `studies.baselines`."""

from algebraformer._deprecated import install

install("classical")
