"""Which parameters learn by which rule: a pure function of the recipe of a phase and its model.

The rate of a parameter is base x layer_decay^depth x bias_lr_factor, and in a step x the schedule;
base is the added layer's own lr, else its group's, else the phase's, else fine_tune's, else the
default. A rate that a layer has by its name is not decayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from torch import nn

from tlcompile.errors.base import RecipeKey
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.optimizers import AdamW, OneOptimizer, OwnSettings
from tlcompile.recipe.schema import Recipe
from tlcompile.training.groups import Group
from tlcompile.training.schedule import default_rate

ALL: Final = "all"
HEAD: Final = "head"  # behind the last stage

OwnDecay = tuple[RecipeKey, float]  # who says it, what

# Adadelta finds the size of its steps itself; torch's default rate for it is 1, not 1e-3.
_SCALE = {"adadelta": 1000.0}


@dataclass(frozen=True)
class Rule:
    """How a parameter learns.

    Attributes:
        label: Names the group.
        optimizer: Its name.
        lr: Before the schedule.
        options: The optimizer's own.
        used: The keys of the recipe that took part.
    """

    label: str
    optimizer: str
    lr: float
    options: tuple[tuple[str, Any], ...]
    used: frozenset[RecipeKey] = field(default=frozenset(), compare=False)


def groups_of(recipe: Recipe, model: CompiledModel) -> tuple[Group, ...]:
    """Return the groups of a phase: each trainable parameter is in exactly one.

    Args:
        recipe: Of one phase, as `recipe.phases()` gives it.
        model: That recipe, compiled; it may live on meta.
    """
    held: dict[Rule, list[str]] = {}
    for name, rule in rules_of(recipe, model):
        held.setdefault(rule, []).append(name)
    return tuple(
        Group(rule.label, tuple(names), rule.optimizer, rule.lr, dict(rule.options))
        for rule, names in held.items()
    )


def rules_of(recipe: Recipe, model: CompiledModel) -> Iterator[tuple[str, Rule]]:
    """Yield each trainable parameter's name with its rule."""
    rules = _Rules(recipe, model)
    return ((name, rules.rule(name, parameter)) for name, parameter in model.trainable())


def base_rate(recipe: Recipe, model: CompiledModel) -> float:
    """Return the learning rate: the recipe's, else one that fits what trains."""
    optimizer = recipe.fine_tune.optimizer
    if optimizer.lr is not None:
        return float(optimizer.lr)
    return default_rate(model) * _SCALE.get(optimizer.name, 1.0)


def in_region(name: str, region: str) -> bool:
    """Tell whether a parameter or vertex is a region, or inside of it."""
    return name == region or name.startswith(f"{region}.")


class _Rules:
    """Looks up what a recipe says of each parameter."""

    def __init__(self, recipe: Recipe, model: CompiledModel) -> None:
        self.recipe = recipe
        self.tune = recipe.fine_tune
        self.model = model
        self.rate = base_rate(recipe, model)
        self.stages = Stages(model)
        names = [row.name for row in model.summary.vertices]
        # A region of this name comes first.
        self.staged = [
            group
            for group in self.tune.groups
            if group in self.stages.ends and not any(in_region(name, group) for name in names)
        ]

    def rule(self, name: str, parameter: nn.Parameter) -> Rule:
        """Return how a parameter learns."""
        own = self._settings(name)
        optimizer, decay, used = self._optimizer(own)
        lr, by_name = self._base(own)
        used |= by_name
        labels = [str(own[0][0][-1])] if own else []
        if optimizer.name == "muon" and parameter.dim() != 2:
            lr = lr if optimizer.others_lr is None else optimizer.others_lr
            optimizer = AdamW()
            labels.append("adamw")
        options = optimizer.options()
        if decay is not None and "weight_decay" in options:
            options["weight_decay"] = decay[1]
            used.add(decay[0])
        if self.tune.layer_decay != 1 and not by_name:
            stage, depth = self.stages.of(name)
            lr *= self.tune.layer_decay**depth
            labels += [stage] if stage not in labels else []
            used |= {("fine_tune", "layer_decay")} if depth else set()
        if self.tune.bias_lr_factor != 1 and is_bias(name):
            lr *= self.tune.bias_lr_factor
            used |= {("fine_tune", "bias_lr_factor")}
            labels.append("biases")
        if options.get("weight_decay") and self._never_decays(name):
            options = {**options, "weight_decay": 0.0}
            used |= {("fine_tune", "no_decay")}
            labels.append("no decay")
        label = " ".join(labels) or ALL
        return Rule(label, optimizer.name, lr, tuple(options.items()), frozenset(used))

    def _settings(self, name: str) -> list[tuple[RecipeKey, OwnSettings]]:
        """Return what the recipe says of a parameter by a name, the innermost first."""
        says: list[tuple[RecipeKey, OwnSettings]] = [
            (("add", added), layer)
            for added, layer in self.recipe.add.items()
            if in_region(name, added) and written(layer)
        ]
        groups = [group for group in self.tune.groups if in_region(name, group)]
        groups.sort(key=len, reverse=True)
        groups += [group for group in self.staged if self.stages.of(name)[0] == group]
        return says + [(("fine_tune", "groups", g), self.tune.groups[g]) for g in groups]

    def _optimizer(
        self, own: list[tuple[RecipeKey, OwnSettings]]
    ) -> tuple[OneOptimizer, OwnDecay | None, set[RecipeKey]]:
        """Return the innermost optimizer, who gives it another weight decay, and who chose it."""
        decay: OwnDecay | None = None
        for key, settings in own:
            if settings.weight_decay is not None and decay is None:
                decay = (*key, "weight_decay"), settings.weight_decay
            if settings.optimizer is not None:
                return settings.optimizer, decay, {(*key, "optimizer")}
        return self.tune.optimizer, decay, set()

    def _base(self, own: list[tuple[RecipeKey, OwnSettings]]) -> tuple[float, set[RecipeKey]]:
        """Return the rate to start from, and the key that says it, if it is said by a name."""
        for key, settings in own:
            if settings.lr is not None:
                return float(settings.lr), {(*key, "lr")}
            if settings.optimizer is not None and settings.optimizer.lr is not None:
                return float(settings.optimizer.lr), {(*key, "optimizer")}
        return self.rate, set()

    def _never_decays(self, name: str) -> bool:
        kinds = {"bias": is_bias, "norm": self._is_norm, "embedding": self._is_embedding}
        return any(kinds[word](name) for word in self.tune.no_decay)

    def _is_norm(self, name: str) -> bool:
        return any("Norm" in kind.__name__ for kind in type(self._owner(name)).__mro__)

    def _is_embedding(self, name: str) -> bool:
        leaf = name.rpartition(".")[2]
        words = ("embed", "token", "position")
        table = isinstance(self._owner(name), nn.Embedding | nn.EmbeddingBag)
        return table or any(word in leaf for word in words)

    def _owner(self, name: str) -> nn.Module:
        return self.model.tree.get_submodule(name.rpartition(".")[0])


def written(settings: OwnSettings) -> list[str]:
    """Return the keys that say something."""
    return [key for key in OwnSettings.model_fields if getattr(settings, key) is not None]


def is_bias(name: str) -> bool:
    """Tell whether a parameter is a bias, by its name."""
    leaf = name.rpartition(".")[2]
    return leaf.startswith("bias") or leaf.endswith("bias")


class Stages:
    """The stage of each parameter, where the recipe says something by stages."""

    def __init__(self, model: CompiledModel) -> None:
        self._index = {row.name: i for i, row in enumerate(model.summary.vertices)}
        for name, at in list(self._index.items()):  # an added `mlp.linear` has `mlp.weight`
            while name := name.rpartition(".")[0]:
                self._index.setdefault(name, at)
        stages = model.summary.stages
        self.ends = {stage: self._index[end] for stage, end in stages.items()}

    def of(self, name: str) -> tuple[str, int]:
        """Return the stage of a parameter, and how many stages it is away from the classifier."""
        while name and name not in self._index:
            name = name.rpartition(".")[0]
        at = self._index[name]
        behind = [stage for stage, end in self.ends.items() if at <= end]
        return (min(behind, key=lambda s: self.ends[s]), len(behind)) if behind else (HEAD, 0)
