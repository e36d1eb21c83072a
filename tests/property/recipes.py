"""Random recipes for a drawn model: most of them valid, and wrong ones of each kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from property.drawn import LEARNS, SIDE, Description, Shape, Vertex
from property.edited import resolved

Recipe = dict[str, Any]


class Names:
    """What a recipe can name in a model."""

    def __init__(self, description: Description) -> None:
        self.vertices = {v.name: v for v in description.vertices}
        self.all = list(self.vertices)
        parts = sorted({part for v in description.vertices for part in _prefixes(v.part)})
        self.regions = [p for p in parts if any(n.startswith(f"{p}.") for n in self.all)]
        self.shapes: dict[str, Shape] = {"x": (3, SIDE, SIDE)}
        self.shapes |= {n: v.shape for n, v in self.vertices.items() if v.kind != "size"}
        self.nodes = resolved(description)
        self.tensors = [n for n, s in self.shapes.items() if s and not self._is_param(n)]

    def readers(self, name: str) -> list[str]:
        return [n for n, node in self.nodes.items() if name in node.reads]

    def of_shape(self, shape: Shape) -> list[str]:
        return [n for n in self.tensors if self.shapes[n] == shape]

    def _is_param(self, name: str) -> bool:
        return name in self.vertices and self.vertices[name].kind == "param"


def _prefixes(part: str) -> list[str]:
    words = part.split(".") if part else []
    return [".".join(words[:depth]) for depth in range(1, len(words) + 1)]


@st.composite
def freezes(draw: st.DrawFn, names: Names) -> Recipe:
    """Draw the section `freeze`."""
    one = st.sampled_from([*names.all, *names.regions])
    upto: Any
    match draw(st.integers(0, 8)):
        case 0:
            upto = ["none"]
        case 1:
            upto = ["head"]
        case 2:
            word = draw(st.sampled_from(("conv", "norm", "fc", "relu")))
            if not any(word in name for name in names.all):
                return {"upto": ["none"]}
            upto = [{"match": f"*{word}*"}]
        case 3 | 4:
            only = draw(st.lists(one, min_size=1, max_size=2, unique=True))
            return {"only": only}
        case 5:
            upto = draw(st.lists(one, min_size=2, max_size=2, unique=True))
        case _:
            early = names.all[: max(1, len(names.all) // 2)]
            upto = [draw(st.sampled_from(early))]
    return {"upto": upto}


def _layer_for(draw: st.DrawFn, shape: Shape, kept: bool) -> Recipe:
    """Draw a layer that can read one input of a shape; `kept`: and returns the same shape."""
    fit = [
        {"layer": "dropout", "p": 0.3},
        {"layer": "scale", "by": 1.5},
        {"layer": "shift", "by": -0.25},
        {"layer": "activation", "name": draw(st.sampled_from(("relu", "tanh", "silu")))},
        {"layer": "batch_norm"},
    ]
    follow: Recipe = {}
    if draw(st.booleans()):
        follow = draw(
            st.sampled_from(
                ({"activation": "relu"}, {"norm": "batch", "dropout": 0.2}, {"norm": "batch"})
            )
        )
    if len(shape) == 3:
        conv = {"layer": "conv2d", "out": shape[0], "kernel": 3, "padding": 1}
        fit += [{**conv, **follow}, {**conv, "bias": False}]
    else:
        fit += [{"layer": "linear", "out": shape[0], **follow}, {"layer": "l2_normalise"}]
    if kept:
        return dict(draw(st.sampled_from(fit)))
    if len(shape) == 3:
        fit += [{"layer": "conv2d", "out": 3, "kernel": 1, **follow}, {"layer": "global_pool"}]
        fit += [{"layer": "flatten"}] + [{"layer": "max_pool"}] * (shape[1] > 1)
    else:
        fit += [{"layer": "linear", "out": 3, **follow}]
    fit += [{"layer": "subset", "first": 0, "last": 1}] * (shape[0] > 2)
    return dict(draw(st.sampled_from(fit)))


def _insert(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    """Put a layer in front of a reader."""
    source = draw(st.sampled_from(names.tensors))
    readers = names.readers(source)
    if readers:
        layer = _layer_for(draw, names.shapes[source], kept=draw(st.integers(0, 3)) > 0)
        layer |= {"inputs": [source], "feeds": [draw(st.sampled_from(readers))]}
        recipe["add"][f"new{len(recipe['add'])}"] = layer


def _join(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    """Combine two vertices, and feed a reader of the later one."""
    source = draw(st.sampled_from(names.tensors))
    same = [n for n in names.of_shape(names.shapes[source]) if n != source]
    if same and names.readers(source):
        other = draw(st.sampled_from(same))
        kind = draw(st.sampled_from(("add", "average", "maximum", "multiply")))
        reader = draw(st.sampled_from(names.readers(source)))
        layer = {"layer": kind, "inputs": [source, other], "feeds": [reader]}
        recipe["add"][f"new{len(recipe['add'])}"] = layer


def _bypass(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    narrow = [
        n
        for n, v in names.vertices.items()
        if len(v.reads) == 1 and names.shapes.get(v.reads[0]) == v.shape
    ]
    if narrow or names.regions:
        recipe["remove"][draw(st.sampled_from([*narrow, *names.regions]))] = "bypass"


def _drop(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    """Drop a branch of a concatenation, mostly."""
    cats = [v for v in names.vertices.values() if v.kind == "cat"]
    if cats:
        reads = names.nodes[draw(st.sampled_from(cats)).name].reads
        recipe["remove"][draw(st.sampled_from(reads))] = "drop"


def _replace(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    name = draw(st.sampled_from([*names.all, *names.regions]))
    if name in names.vertices:
        vertex = names.vertices[name]
        shape = names.shapes.get(vertex.reads[0]) if vertex.reads else None
        if shape is None:
            return
        if vertex.kind == "linear":
            layer: Recipe = {"layer": "linear", "out": vertex.shape[0]}
        else:
            layer = _layer_for(draw, shape, kept=draw(st.booleans()))
        if len(vertex.reads) > 1 or draw(st.booleans()):
            layer["inputs"] = [vertex.reads[0]]
    else:
        shape = names.shapes["x"]
        inside = [v for n, v in names.vertices.items() if n.startswith(f"{name}.")]
        if inside[0].reads and inside[0].reads[0] in names.shapes:
            shape = names.shapes[inside[0].reads[0]]
        layer = _layer_for(draw, shape, kept=False)
    recipe["remove"][name] = "replace"
    recipe["add"][name] = layer


def _new_end(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    """Return something else: one vertex, several, or a new classifier behind a vertex."""
    source = draw(st.sampled_from(names.tensors))
    if draw(st.booleans()):
        name = source
        if len(names.shapes[source]) == 3:
            name = "flat_new"
            recipe["add"][name] = {"layer": "flatten", "inputs": [source]}
        layer: Recipe = {"layer": "linear", "out": "classes", "inputs": [name]}
        recipe["add"]["logits"] = layer
        source = "logits"
    recipe["outputs"] = [source]
    if draw(st.integers(0, 2)) == 0:
        more = [n for n in names.tensors if n not in (source, "x")]
        recipe["outputs"].append(draw(st.sampled_from(more)))
    recipe["outputs"] = list(dict.fromkeys(recipe["outputs"]))


def _more_input(draw: st.DrawFn, names: Names, recipe: Recipe) -> None:
    """Join an added input in front of a linear layer that is built anew."""
    linears = [v for v in names.vertices.values() if v.kind == "linear" and v.part == ""]
    if linears and not recipe["inputs"]:
        vertex = draw(st.sampled_from(linears))
        recipe["inputs"]["meta"] = {"shape": [3]}
        recipe["remove"][vertex.name] = "replace"
        recipe["add"]["both"] = {"layer": "concat", "inputs": [vertex.reads[0], "meta"]}
        recipe["add"][vertex.name] = {
            "layer": "linear", "out": vertex.shape[0], "inputs": ["both"],
        }  # fmt: skip


_EDITS = (
    _insert,
    _insert,
    _join,
    _bypass,
    _bypass,
    _drop,
    _replace,
    _replace,
    _new_end,
    _more_input,
)


@st.composite
def recipes(draw: st.DrawFn, description: Description) -> Recipe:
    """Draw a recipe of up to three edits; empty sections are left out."""
    names = Names(description)
    recipe: Recipe = {"remove": {}, "add": {}, "inputs": {}}
    for _ in range(draw(st.integers(0, 3))):
        draw(st.sampled_from(_EDITS))(draw, names, recipe)
    recipe["freeze"] = draw(freezes(names))
    head = draw(st.sampled_from((None, None, "keep", "keep", "auto")))
    if head:
        recipe["head"] = head
    plain = [v for v in recipe["add"].values() if v["layer"] in ("linear", "conv2d")]
    if any("activation" not in v and "dropout" not in v for v in plain) and draw(st.booleans()):
        recipe["fine_tune"] = {"activation": "tanh", "dropout": 0.25}
    return {"base": {"model": "own", "size": SIDE}, **{k: v for k, v in recipe.items() if v}}


def learns(vertex: Vertex) -> bool:
    return vertex.kind in LEARNS
