"""A second, plain interpreter of recipes over drawn models. It shares no code with the compiler.

It edits lists of names and runs torch eagerly, vertex by vertex. What it refuses, the compiler must
refuse; what it accepts, the compiler must compile to the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from property.drawn import (
    ACTIVATIONS,
    LEARNS,
    NUM_OUT,
    SIDE,
    Description,
    Net,
    Vertex,
    compute,
)


SIZED = ("linear", "conv2d", "batch_norm", "norm")  # added layers whose weights have a width


class Refused(Exception):  # noqa: N818, an answer
    """The recipe means nothing."""


@dataclass
class Node:
    """A vertex whose readers and sources may change."""

    vertex: Vertex
    reads: list[str]
    added: dict[str, Any] | None = None  # the entry of `add`, or of the part behind it
    doomed: bool = False

    @property
    def learns(self) -> bool:
        return self.vertex.kind in (*LEARNS, "param")


@dataclass
class Edited:
    """What a recipe makes of a description.

    Attributes:
        nodes: By name, without what is dead.
        outputs: One: a tensor; several: a dict or, untouched, a tuple.
        frozen: Names that learn nothing.
        modules: By vertex, for the vertices that have one; filled by `build`.
        named: Whether several outputs are a dict.
        num_logits: Width of the output where `head: auto` answers for it.
    """

    nodes: dict[str, Node]
    outputs: list[str]
    frozen: set[str]
    named: bool
    num_logits: int | None
    modules: dict[str, nn.Module] = field(default_factory=dict)


def resolved(description: Description) -> dict[str, Node]:
    """Read what was overwritten in place under the name of what overwrote it."""
    now: dict[str, str] = {}
    nodes: dict[str, Node] = {"x": Node(Vertex("x", "input", (), (3, SIDE, SIDE)), [])}
    for vertex in description.vertices:
        nodes[vertex.name] = Node(vertex, [now.get(read, read) for read in vertex.reads])
        if vertex.in_place:
            now[vertex.reads[0]] = vertex.name
    return nodes


class Reference:
    """Applies a recipe, given as plain data, to a description."""

    def __init__(self, description: Description, recipe: dict[str, Any], classes: int) -> None:
        self.base = resolved(description)
        self.nodes = resolved(description)
        last = {v.reads[0]: v.name for v in description.vertices if v.in_place}
        self.base_outputs = [last.get(name, name) for name in description.outputs]
        self.recipe, self.classes = recipe, classes

    def edited(self) -> Edited:
        """Apply every section in the fixed order."""
        frozen, alone = self._frozen()
        self._look_up_removed()
        self._refuse_output_activations()
        self._refuse_unused_defaults()
        outputs = list(self.recipe.get("outputs") or self.base_outputs)
        for name, one in self.recipe.get("inputs", {}).items():
            vertex = Vertex(name, "input", (), tuple(one["shape"]))
            self.nodes[name] = Node(vertex, [], added={"layer": "input"})
        for drops in (False, True):
            for name in self._removed():
                if (self.recipe["remove"][name] == "drop") is drops:
                    self._remove(name, self.recipe["remove"][name], outputs)
        for name in self._order():
            self._add(name, self.recipe["add"][name], outputs)
        logits = None
        edits = any(self.recipe.get(k) for k in ("inputs", "remove", "add", "outputs"))
        if self._head_is_auto():
            edits, logits = True, self.classes
            self._replace_head(outputs)
        outputs = [self._last_of(name) for name in outputs]
        if edits:
            self._drop_dead(outputs)
        self._check_frozen(frozen, alone)
        named = bool(self.recipe.get("outputs"))
        return Edited(self.nodes, outputs, frozen | alone, named, logits)

    # Names

    def _region(self, nodes: dict[str, Node], name: str) -> list[str]:
        if name in nodes:
            return [name]
        found = [n for n in nodes if n.startswith(f"{name}.")]
        if not found:
            raise Refused(f"nothing is called {name}")
        return found

    def _last_of(self, name: str) -> str:
        last = self._region(self.nodes, name)[-1]
        if self.nodes[last].doomed:
            raise Refused(f"{last} is removed")
        return last

    def _readers(self, name: str) -> list[str]:
        return [n for n, node in self.nodes.items() if name in node.reads]

    def _ancestors(self, nodes: dict[str, Node], names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += nodes[name].reads
        return found

    # Freeze

    def _frozen(self) -> tuple[set[str], set[str]]:
        freeze = self.recipe["freeze"]
        ends: list[str] = []
        for point in freeze.get("upto", ["none"] if "only" in freeze else ["head"]):
            if isinstance(point, dict):
                part = point["match"].strip("*")
                ends += [n for n in self.base if part in n]
            elif point == "all":
                ends += list(self.base)
            elif point == "head":
                ends.append(self._feature(self._classifier(self.base, self.base_outputs)))
            elif point != "none":
                ends.append(self._region(self.base, point)[-1])
                if self.base[ends[-1]].vertex.kind in ("input", "param"):
                    raise Refused("a freeze point that computes nothing")
        alone = {n for name in freeze.get("only", []) for n in self._region(self.base, name)}
        return self._ancestors(self.base, ends), alone

    def _classifier(self, nodes: dict[str, Node], outputs: list[str]) -> str:
        """Return the base's last vertex with parameters on the way to an output."""
        reached = self._ancestors(nodes, [o for o in outputs if o in nodes])
        found = [n for n in nodes if n in reached and nodes[n].learns and not nodes[n].added]
        if not found or not nodes[found[-1]].reads:
            raise Refused("no classifier")
        return found[-1]

    def _feature(self, classifier: str) -> str:
        feature = self.base[classifier].reads[0]
        while self.base[feature].vertex.kind == "dropout":
            feature = self.base[feature].reads[0]
        return feature

    def _check_frozen(self, frozen: set[str], alone: set[str]) -> None:
        stopped = frozen | alone
        for name, node in self.nodes.items():
            if name in stopped and (node.added or name not in self.base):
                raise Refused(f"{name} is random and frozen")
            if name in frozen and any(read not in frozen for read in node.reads):
                raise Refused(f"{name} is frozen and reads what is not")
            shared = node.vertex.kind in (*LEARNS, "param", "dropout")
            for other, twin in self.nodes.items():
                same = shared and twin.vertex.module == node.vertex.module
                if same and (name in stopped) != (other in stopped):
                    raise Refused(f"{node.vertex.module} is frozen and trains")

    # Remove

    def _removed(self) -> list[str]:
        """Return what is removed, in the order of computation."""
        place = list(self.base)
        return sorted(
            self.recipe.get("remove", {}), key=lambda n: place.index(self._region(self.base, n)[0])
        )

    def _look_up_removed(self) -> None:
        taken: set[str] = set()
        for name, how in self.recipe.get("remove", {}).items():
            region = set(self._region(self.base, name))
            if region & taken:
                raise Refused(f"{name} is removed twice")
            taken |= region
            if how == "replace" and name not in self.recipe.get("add", {}):
                raise Refused(f"{name} is not replaced")
        freeze = self.recipe["freeze"]
        for point in [*freeze.get("upto", []), *freeze.get("only", [])]:
            if isinstance(point, dict):
                part = point["match"].strip("*")
                ends = {n for n in self.base if part in n}
            elif point in ("none", "head", "all"):
                continue
            else:
                region = self._region(self.base, point)
                ends = set(region if point in freeze.get("only", []) else region[-1:])
            if ends & taken:
                raise Refused("a freeze point is removed")
        if self.recipe.get("head") == "auto" and "outputs" not in self.recipe:
            if self._classifier(self.base, self.base_outputs) in taken:
                raise Refused("the classifier is removed and replaced")

    def _crossing(self, region: list[str], outputs: list[str]) -> tuple[list[str], list[str]]:
        entering = [r for n in region for r in self.nodes[n].reads if r not in region]
        leaving = [
            n for n in region
            if any(r not in region for r in self._readers(n)) or n in self.base_outputs
        ]  # fmt: skip
        del outputs
        return list(dict.fromkeys(entering)), leaving

    def _redirect(self, old: str, new: str, outputs: list[str], but: Iterable[str] = ()) -> None:
        for name, node in self.nodes.items():
            if name not in but:
                node.reads = [new if read == old else read for read in node.reads]
        if not self.recipe.get("outputs"):
            outputs[:] = [new if out == old else out for out in outputs]

    def _remove(self, name: str, how: str, outputs: list[str]) -> None:
        region = self._region(self.nodes, name)
        for one in region:
            self.nodes[one].doomed = True
        if how == "bypass":
            entering, leaving = self._crossing(region, outputs)
            if len(entering) != 1 or len(leaving) != 1:
                raise Refused(f"{name} cannot be bypassed")
            self._redirect(leaving[0], entering[0], outputs, but=region)
        elif how == "drop":
            for one in region:
                for reader in self._readers(one):
                    node = self.nodes[reader]
                    kept = [read for read in node.reads if read != one]
                    if node.vertex.kind == "cat" and kept:
                        node.reads = kept

    # Add

    def _order(self) -> list[str]:
        waiting, done = dict(self.recipe.get("add", {})), []
        while waiting:
            ready = [
                n for n, layer in waiting.items()
                if not any(
                    read == other or read.startswith(f"{other}.")
                    for read in layer.get("inputs", [])
                    for other in waiting
                    if other != n
                )
            ]  # fmt: skip
            if not ready:
                raise Refused("a circle")
            done.append(min(ready))
            del waiting[min(ready)]
        return done

    def _refuse_output_activations(self) -> None:
        """Outputs are logits."""
        returned = self.recipe.get("outputs") or self.base_outputs
        for name, layer in self.recipe.get("add", {}).items():
            ends = any(n == name or n.startswith(f"{name}.") for n in returned)
            if ends and (layer["layer"] == "activation" or layer.get("activation")):
                raise Refused(f"{name} ends in an activation")

    def _refuse_unused_defaults(self) -> None:
        for default in self.recipe.get("fine_tune", {}):
            takes = [
                n for n, layer in self.recipe.get("add", {}).items()
                if default not in layer and default in self._filled(n, layer)
            ]  # fmt: skip
            if not takes:
                raise Refused(f"nothing takes fine_tune.{default}")

    def _add(self, name: str, layer: dict[str, Any], outputs: list[str]) -> None:
        old = [n for n in self.nodes if n == name or n.startswith(f"{name}.")]
        if any(not self.nodes[n].doomed for n in old):
            raise Refused(f"{name} is taken")
        entering = self._crossing(old, outputs)[0] if old else []
        reads = [self._last_of(n) for n in layer["inputs"]] if layer.get("inputs") else entering
        many = layer["layer"] in ("concat", "add", "average", "maximum", "multiply")
        if (len(reads) < 2) if many else (len(reads) != 1):
            raise Refused(f"{name} has {len(reads)} inputs")
        for one in old:  # out of the way, still read
            self.nodes[f"{one} (old)"] = self.nodes.pop(one)
            self._redirect(one, f"{one} (old)", outputs)
        last = self._insert(name, self._filled(name, layer), reads)
        gone = [f"{one} (old)" for one in old]
        for one in gone:
            self._redirect(one, last, outputs, but=gone)
        for one in gone:
            del self.nodes[one]
        for target in layer.get("feeds", []):
            fed = [
                n for n in self._region(self.nodes, target)
                if not (self.nodes[n].doomed or self.nodes[n].added)
            ]  # fmt: skip
            hit = [
                n for n in fed
                if set(self.nodes[n].reads) & set(reads) and self.nodes[n].vertex.kind != "size"
            ]  # fmt: skip
            if not hit:
                raise Refused(f"{target} reads nothing that {name} reads")
            for reader in hit:
                node = self.nodes[reader]
                node.reads = [last if r in reads else r for r in node.reads]
                if reader in self._ancestors(self.nodes, [last]):
                    raise Refused("a circle")

    def _filled(self, name: str, layer: dict[str, Any]) -> dict[str, Any]:
        learns = layer["layer"] in ("linear", "conv2d")
        tune = self.recipe.get("fine_tune", {})
        returned = self.recipe.get("outputs") or self.base_outputs
        ends = any(n == name or n.startswith(f"{name}.") for n in returned)
        if not learns or ends or layer.get("out") == "classes":
            return layer
        defaults = {k: tune[k] for k in ("activation", "dropout") if k in tune}
        return {**defaults, **layer}

    def _insert(self, name: str, layer: dict[str, Any], reads: list[str]) -> str:
        follow = [p for p in ("norm", "activation", "dropout") if layer.get(p)]
        main = f"{name}.{layer['layer']}" if follow else name
        self._put(main, name, layer, reads)
        last = main
        for part in follow:
            target = f"{name}.{part}"
            self._put(target, target, {"layer": part, "what": layer[part]}, [last])
            last = target
        return last

    def _put(self, name: str, module: str, layer: dict[str, Any], reads: list[str]) -> None:
        vertex = Vertex(name, layer["layer"], tuple(reads), (), module=module)
        self.nodes[name] = Node(vertex, list(reads), added=layer)

    # Head, outputs, dead vertices

    def _head_is_auto(self) -> bool:
        if "head" in self.recipe:
            return bool(self.recipe["head"] == "auto")
        if self.recipe.get("outputs"):
            return False
        classifier = self._classifier(self.base, self.base_outputs)
        return not any(
            classifier in self._region(self.base, name) for name in self.recipe.get("remove", {})
        )

    def _replace_head(self, outputs: list[str]) -> None:
        if len(self.base_outputs) > 1:
            raise Refused("several outputs")
        classifier = self._classifier(self.nodes, outputs)
        node = self.nodes[classifier]
        if node.vertex.kind not in ("linear", "conv") or (
            node.vertex.kind == "conv" and node.vertex.settings[2] != 1
        ):
            raise Refused("no linear classifier")
        reached = self._ancestors(self.nodes, outputs)
        behind = [
            n for n in self.nodes if n in reached and classifier in self._ancestors(self.nodes, [n])
        ]
        for name in behind:
            if self.nodes[name].added and self.nodes[name].vertex.kind in SIZED:
                raise Refused(f"{name} is as wide as the classifier was")
            if self.nodes[name].vertex.kind in (*ACTIVATIONS, "activation"):
                self._redirect(name, self.nodes[name].reads[0], outputs)
                self.nodes[name].doomed = True
        _, out, *rest = node.vertex.settings
        del out
        layer = {"layer": "head", "rest": rest, "kind": node.vertex.kind, "out": self.classes}
        node.added = layer

    def _drop_dead(self, outputs: list[str]) -> None:
        alive = self._ancestors(self.nodes, outputs)
        for name in alive:
            if self.nodes[name].doomed:
                raise Refused(f"{name} is removed and still read")
        for name, node in list(self.nodes.items()):
            if name in alive or (node.vertex.kind == "input" and not node.added):
                continue
            if node.added:
                raise Refused(f"no output reads {name}")
            del self.nodes[name]


def build(edited: Edited, base: Net, state: dict[str, Tensor] | None) -> None:
    """Make every vertex' module: the base's own, or a new one with the weights of `state`.

    Raises:
        Refused: A vertex cannot take the shapes that reach it.
    """
    made: dict[str, nn.Module] = {}
    values: dict[str, Any] = {}
    for name in ordered(edited):
        node = edited.nodes[name]
        if node.vertex.kind == "input":
            values[name] = torch.zeros(2, *node.vertex.shape)
            continue
        read = [values[r] for r in node.reads]
        module = _module_of(node, read, base, state)
        if module is not None:
            edited.modules[name] = made.setdefault(node.vertex.module, module.eval())
        try:
            values[name] = step(edited, name, read)
        except (RuntimeError, ValueError) as cause:
            raise Refused(str(cause)) from cause
    if edited.num_logits and values[edited.outputs[0]].shape[1:] != (edited.num_logits,):
        raise Refused("the new classifier does not give the logits")


def _module_of(
    node: Node, read: list[Tensor], base: Net, state: dict[str, Tensor] | None
) -> nn.Module | None:
    path = node.vertex.module
    if not node.added:
        return copy.deepcopy(base.get_submodule(path.removesuffix(".gain"))) if path else None
    module = added_module(node, read)
    if module is not None and state is not None:
        own = {name: state[f"{path}.{name}"] for name in module.state_dict()}
        module.load_state_dict(own)
    return module


def ordered(edited: Edited) -> list[str]:
    """Return the names, each behind what it reads."""
    waiting, done = list(edited.nodes), []
    while waiting:
        name = next((n for n in waiting if set(edited.nodes[n].reads) <= set(done)), None)
        if name is None:
            raise Refused("a circle")
        done.append(name)
        waiting.remove(name)
    return done


def run(edited: Edited, order: list[str], inputs: dict[str, Tensor]) -> Any:
    """Run the vertices in the given order; return what the model returns."""
    values: dict[str, Any] = dict(inputs)
    for name in order:
        if name not in inputs:
            values[name] = step(edited, name, [values[r] for r in edited.nodes[name].reads])
    if len(edited.outputs) == 1:
        return values[edited.outputs[0]]
    found = {name: values[name] for name in edited.outputs}
    return found if edited.named else tuple(values[name] for name in edited.outputs)


def step(edited: Edited, name: str, values: list[Any]) -> Any:
    node = edited.nodes[name]
    module = edited.modules.get(name)
    if node.added and module is None:
        return FUNCTIONS_ADDED[node.vertex.kind](node.added, values)
    if node.added or node.vertex.kind != "param":
        out_of_place = replace(node.vertex, in_place=False)
        if isinstance(module, nn.ReLU):
            module.inplace = False
        return compute(out_of_place, module, values)
    return compute(node.vertex, module, values)


def _average(layer: dict[str, Any], values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values) if layer["layer"] == "average" else total


def _same(values: list[Tensor]) -> None:
    if len({value.shape for value in values}) > 1:
        raise Refused("other shapes")


def _combine(layer: dict[str, Any], values: list[Tensor]) -> Tensor:
    _same(values)
    if layer["layer"] in ("add", "average"):
        return _average(layer, values)
    out = values[0]
    for value in values[1:]:
        out = torch.maximum(out, value) if layer["layer"] == "maximum" else out * value
    return out


FUNCTIONS_ADDED: dict[str, Any] = {
    **dict.fromkeys(("add", "average", "maximum", "multiply"), _combine),
    "concat": lambda layer, values: torch.cat(values, 1),
    "scale": lambda layer, values: values[0] * layer["by"],
    "shift": lambda layer, values: values[0] + layer["by"],
    "l2_normalise": lambda layer, values: F.normalize(values[0], dim=1),
    "subset": lambda layer, values: values[0][:, layer["first"] : layer["last"] + 1],
}
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


def added_module(node: Node, values: list[Tensor]) -> nn.Module | None:
    """Return torch's own module for an entry of `add`, as wide as what reaches it."""
    layer, shape = node.added or {}, tuple(values[0].shape[1:])
    is_map = len(shape) == 3
    match layer["layer"]:
        case "head":
            if layer["kind"] == "linear":
                return nn.Linear(shape[-1], layer["out"], *layer["rest"])
            kernel, stride, _, bias = layer["rest"]
            return nn.Conv2d(shape[0], layer["out"], kernel, stride, bias=bias)
        case "linear":
            if is_map:
                raise Refused("a map into a linear layer")
            return nn.Linear(shape[0], _width(layer), bias=layer.get("bias", True))
        case "conv2d":
            if not is_map:
                raise Refused("a vector into a convolution")
            return nn.Conv2d(
                shape[0], _width(layer), layer.get("kernel", 3),
                stride=layer.get("stride", 1), padding=layer.get("padding", 0),
                bias=layer.get("bias", True),
            )  # fmt: skip
        case "batch_norm":
            return (nn.BatchNorm2d if is_map else nn.BatchNorm1d)(shape[0])
        case "norm":
            if layer["what"] == "layer":
                raise Refused("not drawn")
            return (nn.BatchNorm2d if is_map else nn.BatchNorm1d)(shape[0])
        case "activation":
            return _ACTIVATIONS[layer.get("what") or layer["name"]]()
        case "dropout":
            return nn.Dropout(layer.get("what") or layer.get("p", 0.5))
        case "max_pool" | "avg_pool" | "global_pool":
            if not is_map:
                raise Refused("a vector into a pooling")
            kinds = {"max_pool": nn.MaxPool2d(2), "avg_pool": nn.AvgPool2d(2)}
            return kinds.get(layer["layer"], nn.AdaptiveAvgPool2d(1))
        case "flatten":
            return nn.Flatten()
        case "concat":
            if len({tuple(value.shape[2:]) for value in values}) > 1:
                raise Refused("sizes")
        case "subset":
            if layer["last"] >= shape[0]:
                raise Refused("channels that do not exist")
    return None


def _width(layer: dict[str, Any]) -> int:
    return int(NUM_OUT + 1 if layer["out"] == "classes" else layer["out"])
