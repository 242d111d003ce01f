"""Learned solvers for families of ill-conditioned linear systems; every answer is certified.

>>> import algebraformer as af
>>> systems = af.problems.get("diffusion", n=64).sample(2, seed=1)
>>> result = af.LearnedSolver.from_pretrained("diffusion-64").solve(systems.A, systems.b)
>>> bool(result.certified.all())
True

Names are imported when they are first used. Solving needs no torch; training does, see the extra [train].
"""

import lazy_loader

from algebraformer.extras import naming_the_extra
from algebraformer.forking import protect_children

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = naming_the_extra(_attached)
__version__ = "0.1.0"

protect_children()
