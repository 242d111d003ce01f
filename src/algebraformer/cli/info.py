"""The commands that list what there is: `families`, `models` and `info`."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from algebraformer.cli.output import DONE, emit, show
from algebraformer.training.recipes import RECIPES


@dataclasses.dataclass(frozen=True)
class Families:
    """List the families and their settings."""

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer import problems

        families = {name: problems.family_class(name) for name in problems.names()}
        described: dict[str, dict[str, Any]] = {
            name: {"about": (cls.__doc__ or "").strip().splitlines()[0], "settings": cls().settings()}
            for name, cls in families.items()
        }
        if self.json:
            emit(described)
        else:
            rows = []
            for name, entry in described.items():
                settings = ", ".join(f"{k}={v}" for k, v in entry["settings"].items() if k != "name")
                rows.append([name, entry["about"], settings])
            show("Families", ("name", "about", "settings"), rows)
        return DONE


@dataclasses.dataclass(frozen=True)
class Models:
    """List the shipped models with their scores, and all recipes with their parameter counts."""

    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        from algebraformer import checkpoint
        from algebraformer.models.inference.network import parameter_count

        recipes = {
            name: {"parameters": parameter_count(recipe.model), **recipe.settings()} for name, recipe in RECIPES.items()
        }
        shipped = {}
        for name in checkpoint.pretrained_names():
            folder = checkpoint.resolve(name)
            files = checkpoint.read_folder(folder)
            config, _, info = checkpoint.parse(files, str(folder))
            shipped[name] = {
                "family": info.family["name"],
                "n": config.n,
                "parameters": parameter_count(config),
                "bytes": sum(map(len, files.values())),
                "scores": info.scores,
            }
        if self.json:
            emit({"shipped": shipped, "recipes": recipes})
            return DONE
        columns = ("model", "family", "n", "parameters", "MB", "normalized_mse", "median error")
        scores = ("normalized_mse", "relative_error_median")  # estimate heads have the second one alone
        rows: list[list[Any]] = [
            [k, v["family"], v["n"], v["parameters"], v["bytes"] / 1e6, *map(v["scores"].get, scores)]
            for k, v in shipped.items()
        ]
        show("Shipped models", columns, rows)
        rows = [
            [k, v["family"], v["model"]["n"], v["parameters"], v["optimizer"], v["steps"], v["batch_size"]]
            for k, v in recipes.items()
        ]
        show("Recipes", ("recipe", "family", "n", "parameters", "optimizer", "steps", "batch_size"), rows)
        return DONE


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, threads and devices."""

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer.provenance import provenance

        devices = ["cpu"]
        if importlib.util.find_spec("torch"):
            import torch

            devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        facts = provenance() | {"devices": devices}
        if self.json:
            emit(facts)
        else:
            versions = facts.pop("versions")
            rows = [[name, str(value)] for name, value in (versions | facts).items()]
            show("", ("what", "value"), rows)
        return DONE
