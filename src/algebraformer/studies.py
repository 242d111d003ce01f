"""Earlier names of `algebraformer.assessment`, `algebraformer.reporting` and, in a checkout, modules of `studies`."""

from algebraformer._deprecated import install

install("studies")
