from . import checkpoint as checkpoint
from . import designs as designs
from . import distributed as distributed
from . import errors as errors
from . import instruments as instruments
from . import io as io
from . import kantorovich as kantorovich
from . import linalg as linalg
from . import models as models
from . import newton as newton
from . import nn as nn
from . import plotting as plotting
from . import problems as problems
from . import testing as testing
from . import training as training
from .assessment import assess as assess
from .checkpoint import pretrained_names as pretrained_names
from .drop_in import solve as solve
from .errors import Status as Status
from .estimation import Estimate as Estimate
from .problems.custom import as_family as as_family
from .result import SolveResult as SolveResult
from .solver import LearnedSolver as LearnedSolver
from .training.automatic import recipe_for as recipe_for
from .training.finetuning import finetune as finetune
from .training.trainer import train as train

__version__: str
