"""Earlier name of `algebraformer.numerics.lp_norm`."""

from algebraformer._deprecated import forward

__getattr__ = forward("lp_norm")
