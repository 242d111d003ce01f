"""Earlier name of `algebraformer.reporting`."""

from algebraformer._deprecated import forward

__getattr__ = forward("report")
