"""Training: recipes, data made in the background, optimisers, one loop for every model."""

from algebraformer.training.config import RECIPES, Recipe, get_recipe
from algebraformer.training.loop import RunOptions, Trainer, TrainResult, score, train

__all__ = ["RECIPES", "Recipe", "RunOptions", "TrainResult", "Trainer", "get_recipe", "score", "train"]
