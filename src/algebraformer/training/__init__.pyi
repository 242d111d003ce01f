from .config import RECIPES as RECIPES
from .config import Recipe as Recipe
from .config import get_recipe as get_recipe
from .loop import RunOptions as RunOptions
from .loop import Trainer as Trainer
from .loop import TrainResult as TrainResult
from .loop import score as score
from .loop import train as train
