"""The commands that list what there is: `families`, `models` and `info`."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Annotated, Any

import tyro

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
    """Show versions, threads and devices; or what a model is, what it was trained on and how well it scores."""

    model: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = None
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        facts = self.machine() if self.model is None else described(self.model)
        if self.json:
            emit(facts)
        else:
            groups = [facts.pop(name) for name in ("versions", "settings", "scores") if name in facts]
            rows = [[name, str(value)] for group in (facts, *groups) for name, value in group.items()]
            show("" if self.model is None else self.model, ("what", "value"), rows)
        return DONE

    def machine(self) -> dict[str, Any]:
        """Return versions, processor, threads and devices."""
        from algebraformer.provenance import provenance

        devices = ["cpu"]
        if importlib.util.find_spec("torch"):
            import torch

            devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        return provenance() | {"devices": devices}


def described(model: str) -> dict[str, Any]:
    """Return what a model is as plain JSON values."""
    from algebraformer import checkpoint
    from algebraformer.models.inference.network import parameter_count

    folder = checkpoint.resolve(model)
    config, _, info = checkpoint.parse(checkpoint.read_folder(folder), str(folder))
    settings = {f"family.{name}": value for name, value in info.family.items()}
    settings |= {
        f"recipe.{name}": info.recipe[name] for name in ("steps", "batch_size", "samples") if name in info.recipe
    }
    return {
        "name": info.name,
        "head": config.head.name,
        "architecture": config.architecture,
        "n": config.n,
        "parameters": parameter_count(config),
        "seconds": info.seconds,
        "commit": info.commit,
        "settings": settings,
        "scores": info.scores,
    }
