"""Learned solvers for families of ill-conditioned linear systems; every answer is certified.

>>> import algebraformer as af
>>> systems = af.problems.get("diffusion", n=64).sample(2, seed=1)
>>> result = af.LearnedSolver.from_pretrained("diffusion-64").solve(systems.A, systems.b)
>>> bool(result.certified.all())
True

Names are imported when they are first used, so that `import algebraformer` does not wait for torch.
"""

import lazy_loader

from algebraformer.forking import protect_children

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

protect_children()
