"""Earlier name of `algebraformer.plotting`."""

from algebraformer._deprecated import forward

__getattr__ = forward("plots")
