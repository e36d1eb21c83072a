"""A second, plain interpreter of recipes over drawn models. It shares no code with the compiler.

It edits lists of names and runs torch eagerly, vertex by vertex. What it refuses, the compiler must
refuse; what it accepts, the compiler must compile to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from property.drawn import ACTIVATIONS, LEARNS, Description, Vertex
from property.edited import Edited, Node, Refused, resolved


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
                ends += self._features()
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

    def _classifiers(self, nodes: dict[str, Node], outputs: list[str]) -> list[str]:
        """Return the linear layers that stand side by side before the output, else the last one."""
        first: set[str] = set()
        waiting, seen = [o for o in outputs if o in nodes], set[str]()
        while waiting:
            name = waiting.pop()
            if nodes[name].learns and not nodes[name].added:
                first.add(name)
            elif name not in seen:
                seen.add(name)
                waiting += nodes[name].reads
        last = self._classifier(nodes, outputs)
        beside = all(_is_classifier(nodes[name]) for name in first)
        return [n for n in nodes if n in first] if beside else [last]

    def _features(self) -> list[str]:
        found = []
        for classifier in self._classifiers(self.base, self.base_outputs):
            feature = self.base[classifier].reads[0]
            while self.base[feature].vertex.kind == "dropout":
                feature = self.base[feature].reads[0]
            found.append(feature)
        return found

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
        auto = self.recipe.get("head") == "auto" and "outputs" not in self.recipe
        if auto and set(self._classifiers(self.base, self.base_outputs)) & taken:
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
        classifiers = set(self._classifiers(self.base, self.base_outputs))
        return not any(
            classifiers & set(self._region(self.base, name))
            for name in self.recipe.get("remove", {})
        )

    def _replace_head(self, outputs: list[str]) -> None:
        if len(self.base_outputs) > 1:
            raise Refused("several outputs")
        classifiers = self._classifiers(self.nodes, outputs)
        reached = self._ancestors(self.nodes, outputs)
        behind = [
            n for n in self.nodes
            if n in reached and self._ancestors(self.nodes, [n]) & set(classifiers)
        ]  # fmt: skip
        for name in behind:
            if not self.nodes[name].added and self.nodes[name].vertex.kind in ACTIVATIONS:
                self._redirect(name, self.nodes[name].reads[0], outputs)
                self.nodes[name].doomed = True
        for name in classifiers:
            node = self.nodes[name]
            if not _is_classifier(node):
                raise Refused("no linear classifier")
            rest = node.vertex.settings[2:]
            kind = node.vertex.kind
            node.added = {"layer": "head", "rest": rest, "kind": kind, "out": self.classes}

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


def _is_classifier(node: Node) -> bool:
    kind, settings = node.vertex.kind, node.vertex.settings
    return kind == "linear" or (kind == "conv" and settings[2] == 1)
