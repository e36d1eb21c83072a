"""Random models: a drawn description, and the plain nn.Module that it describes. Images are 8x8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SIDE = 8
NUM_OUT = 4
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Vertex:
    """One operation.

    Attributes:
        name: As the compiler must call it.
        kind: A key of MODULES or FUNCTIONS.
        reads: Names, as the forward is written: who reads a tensor that was overwritten in place
            still writes the old name.
        shape: Of one sample; () for a number.
        part: The module whose forward makes the call: "", "p1" or "p1.q".
        module: Where its module is; two vertices may share one.
        settings: Arguments of the module, or of the function.
        in_place: Whether it overwrites what it reads first.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: Shape
    part: str = ""
    module: str = ""
    settings: tuple[Any, ...] = ()
    in_place: bool = False


@dataclass(frozen=True)
class Description:
    """A model: vertices in the order of computation, and what it returns (several: a tuple)."""

    vertices: tuple[Vertex, ...]
    outputs: tuple[str, ...]


class Scale(nn.Module):
    """Holds a parameter that the forward reads by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(width, 1, 1) + 0.5)


MODULES: dict[str, Callable[..., nn.Module]] = {
    "conv": lambda i, o, k, s, g, b: nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=b),
    "linear": nn.Linear,
    "batch_norm2d": nn.BatchNorm2d,
    "batch_norm1d": nn.BatchNorm1d,
    "layer_norm": nn.LayerNorm,
    "relu": lambda inplace=False: nn.ReLU(inplace=inplace),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "dropout": nn.Dropout,
    "max_pool": lambda: nn.MaxPool2d(2),
    "avg_pool": lambda: nn.AvgPool2d(2),
    "global_pool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten_layer": nn.Flatten,
    "param": Scale,
}
# kind -> (function of the tensors it reads and of its settings, word in the vertex' name)
FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "add": (lambda a, b: a + b, "add"),
    "mul": (lambda a, b: a * b, "mul"),
    "cat": (lambda *inputs: torch.cat(inputs, 1), "cat"),
    "flatten": (lambda x: torch.flatten(x, 1), "flatten"),
    "frelu": (lambda x: F.relu(x), "relu"),
    "size": (lambda x: x.size(0), "size"),
    "view": (lambda x, size: x.reshape(size, -1), "reshape"),
}
LEARNS = ("conv", "linear", "batch_norm2d", "batch_norm1d", "layer_norm")
ACTIVATIONS = ("relu", "tanh", "gelu", "frelu")


def compute(vertex: Vertex, owner: nn.Module | None, values: list[Any]) -> Any:
    """Run one vertex on what it reads."""
    if vertex.kind == "param":
        assert isinstance(owner, Scale)
        return owner.gain
    if owner is not None:
        return owner(*values)
    if vertex.in_place and vertex.kind == "add":
        values[0] += values[1]
        return values[0]
    return FUNCTIONS[vertex.kind][0](*values)


class Part(nn.Module):
    """Runs its steps, each a vertex or a part of its own."""

    def __init__(self, steps: list[Vertex | str]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, root: nn.Module, values: dict[str, Any]) -> None:
        for step in self.steps:
            if isinstance(step, str):
                self.get_submodule(step)(root, values)
            else:
                owner = root.get_submodule(step.module) if step.module else None
                values[step.name] = compute(step, owner, [values[r] for r in step.reads])


class Net(Part):
    """The module that a description describes."""

    def __init__(self, description: Description) -> None:
        super().__init__([])
        self.returned = description.outputs
        for vertex in description.vertices:
            owner = self._part(vertex.part)
            owner.steps.append(vertex)
            parent, _, last = vertex.module.rpartition(".")
            if last and last not in self.get_submodule(parent)._modules:
                made = MODULES[vertex.kind](*vertex.settings)
                self.get_submodule(parent).add_module(last, made)

    def _part(self, path: str) -> Part:
        owner: Part = self
        for name in filter(None, path.split(".")):
            if name not in owner._modules:
                owner.add_module(name, Part([]))
                owner.steps.append(name)
            owner = owner._modules[name]  # type: ignore[assignment]
        return owner

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        values: dict[str, Any] = {"x": x}
        super().forward(self, values)
        found = tuple(values[name] for name in self.returned)
        return found if len(found) > 1 else found[0]


class Draft:
    """A description under construction."""

    def __init__(self) -> None:
        self.vertices: list[Vertex] = []
        self.shapes: dict[str, Shape] = {"x": (3, SIDE, SIDE)}
        self.part = ""
        self.count: dict[str, int] = {}

    def tensors(self, rank: int) -> list[str]:
        return [name for name, shape in self.shapes.items() if len(shape) == rank]

    def unread(self) -> list[str]:
        read = {name for v in self.vertices for name in v.reads}
        return [v.name for v in self.vertices if v.name not in read]

    def was_read(self, name: str) -> bool:
        return any(name in v.reads for v in self.vertices)

    def put(self, vertex: Vertex) -> str:
        self.vertices.append(vertex)
        if vertex.kind not in ("param", "size"):
            self.shapes[vertex.name] = vertex.shape
        return vertex.name

    def call(self, kind: str, reads: tuple[str, ...], shape: Shape, in_place: bool = False) -> str:
        """Add a function; a name that is taken in its part gets _1, _2, ..."""
        word = FUNCTIONS[kind][1]
        path = f"{self.part}.{word}" if self.part else word
        return self.put(
            Vertex(self.numbered(path), kind, reads, shape, self.part, in_place=in_place)
        )

    def layer(
        self, kind: str, source: str, shape: Shape, *settings: Any, name: str = "", at: bool = False
    ) -> str:
        """Add a module of its own."""
        number = sum(v.kind == kind for v in self.vertices)
        path = ".".join(filter(None, (self.part, name or f"{kind}{number}")))
        vertex = Vertex(
            self.numbered(path), kind, (source,), shape, self.part, path, settings, in_place=at
        )
        return self.put(vertex)

    def numbered(self, path: str) -> str:
        seen = self.count.get(path, 0)
        self.count[path] = seen + 1
        return f"{path}_{seen}" if seen else path


def _conv(draw: st.DrawFn, draft: Draft, source: str) -> None:
    channels, height, _ = draft.shapes[source]
    out = draw(st.integers(2, 5))
    kernel = draw(st.sampled_from((1, 3)))
    stride = draw(st.sampled_from((1, 1, 2))) if height > 1 else 1
    groups = channels if channels == out and draw(st.booleans()) else 1
    side = (height - 1) // stride + 1
    settings = (channels, out, kernel, stride, groups, draw(st.booleans()))
    draft.layer("conv", source, (out, side, side), *settings)


def _same_shape(draw: st.DrawFn, draft: Draft, source: str) -> None:
    shape = draft.shapes[source]
    norm = ["batch_norm2d", "scaled"] if len(shape) == 3 else ["batch_norm1d", "layer_norm"]
    kind = draw(st.sampled_from([*norm, "relu", "tanh", "gelu", "dropout", "frelu"]))
    if kind == "scaled":
        path = ".".join(filter(None, (draft.part, f"scale{len(draft.vertices)}")))
        gain = Vertex(f"{path}.gain", "param", (), shape, draft.part, path, (shape[0],))
        draft.call("mul", (source, draft.put(gain)), shape)
    elif kind == "frelu":
        draft.call("frelu", (source,), shape)
    elif kind == "relu":
        overwrites = draw(st.booleans()) and _may_overwrite(draft, source)
        draft.layer("relu", source, shape, overwrites, at=overwrites)
    else:
        width = (shape[0],) if "norm" in kind else ()
        draft.layer(kind, source, shape, *width)


def _may_overwrite(draft: Draft, source: str) -> bool:
    """Only what a layer with weights computed, and nobody has read: autograd may need the others."""
    fresh = [v for v in draft.vertices if v.name == source and v.kind in ("conv", "linear")]
    return bool(fresh) and not draft.was_read(source)


def _narrower(draw: st.DrawFn, draft: Draft, source: str) -> None:
    channels, height, _ = draft.shapes[source]
    kinds = ["global_pool", "flatten", "view", "flatten_layer"]
    kind = draw(st.sampled_from([*kinds, "max_pool", "avg_pool"] if height > 1 else kinds))
    if kind in ("max_pool", "avg_pool"):
        draft.layer(kind, source, (channels, height // 2, height // 2))
    elif kind == "global_pool":
        draft.layer(kind, source, (channels, 1, 1))
    else:
        flatten(draft, source, kind)


def flatten(draft: Draft, source: str, kind: str = "flatten") -> str:
    """Make a vector of a map."""
    channels, height, width = draft.shapes[source]
    flat = (channels * height * width,)
    if kind == "view":
        size = draft.call("size", (source,), ())
        return draft.call("view", (source, size), flat)
    if kind == "flatten_layer":
        return draft.layer(kind, source, flat)
    return draft.call(kind, (source,), flat)


def _merge(draw: st.DrawFn, draft: Draft, source: str) -> None:
    shape = draft.shapes[source]
    same = [n for n, s in draft.shapes.items() if s == shape and n != source]
    beside = [n for n, s in draft.shapes.items() if s[1:] == shape[1:] and n != source]
    if same and draw(st.booleans()):
        other = draw(st.sampled_from(same))
        overwrites = draw(st.booleans()) and _may_overwrite(draft, source)
        draft.call("add", (source, other), shape, in_place=overwrites)
    elif beside:
        other = draw(st.sampled_from(beside))
        out = (shape[0] + draft.shapes[other][0], *shape[1:])
        draft.call("cat", (source, other), out)


def _again(draw: st.DrawFn, draft: Draft, source: str) -> None:
    """Call a module for a second time."""
    shapes = {"x": (3, SIDE, SIDE), **{v.name: v.shape for v in draft.vertices}}
    fitting = [
        v
        for v in draft.vertices
        if v.module and v.kind != "param" and not v.in_place
        and shapes[v.reads[0]] == draft.shapes[source]
    ]  # fmt: skip
    if fitting:
        old = draw(st.sampled_from(fitting))
        name = draft.numbered(old.module)
        again = Vertex(name, old.kind, (source,), old.shape, draft.part, old.module, old.settings)
        draft.put(again)


@st.composite
def descriptions(draw: st.DrawFn, tuples: bool = True) -> Description:
    """Draw a model of at most a dozen vertices, all of which its outputs need."""
    draft = Draft()
    for number in range(draw(st.integers(1, 7))):
        draft.part = draw(st.sampled_from([draft.part, draft.part, "", f"p{number}", "nested"]))
        if draft.part == "nested":
            parts = [v.part for v in draft.vertices[-1:] if v.part and "." not in v.part]
            draft.part = f"{parts[0]}.q{number}" if parts else f"p{number}.q"
        maps, recent = draft.tensors(3), list(draft.shapes)[-3:]
        source = draw(st.sampled_from(recent if draw(st.booleans()) else list(draft.shapes)))
        steps = [_same_shape, _merge, _again]
        steps += [_conv, _conv, _narrower] if source in maps else [_linear]
        draw(st.sampled_from(steps))(draw, draft, source)
    draft.part = ""
    ends = _ending(draw, draft)
    if tuples and draw(st.integers(0, 9)) == 0:
        ends = (ends, draw(st.sampled_from(list(draft.shapes)[1:])))
        return Description(tuple(draft.vertices), ends)
    return Description(tuple(draft.vertices), (ends,))


def _linear(draw: st.DrawFn, draft: Draft, source: str) -> None:
    out = draw(st.integers(2, 6))
    width = draft.shapes[source][0]
    draft.layer("linear", source, (out,), width, out, draw(st.booleans()))


def _ending(draw: st.DrawFn, draft: Draft) -> str:
    """Bring every loose end together, and classify."""
    if not draft.vertices:
        draft.layer("conv", "x", (3, SIDE, SIDE), 3, 3, 3, 1, 1, True)
    loose = [n for n in draft.unread() if n in draft.shapes]
    if len(loose) == 1 and len(draft.shapes[loose[0]]) == 3 and draw(st.booleans()):
        return _conv_ending(draw, draft, loose[0])
    vectors = [n if len(draft.shapes[n]) == 1 else flatten(draft, n) for n in loose]
    last = vectors[0]
    if len(vectors) > 1:
        width = sum(draft.shapes[n][0] for n in vectors)
        last = draft.call("cat", tuple(vectors), (width,))
    if draw(st.booleans()):
        last = draft.layer("dropout", last, draft.shapes[last])
    out = draft.layer("linear", last, (NUM_OUT,), draft.shapes[last][0], NUM_OUT, name="fc")
    match draw(st.integers(0, 5)):
        case 0:
            return draft.layer("relu", out, (NUM_OUT,))
        case 1:
            twin = draft.layer("linear", last, (NUM_OUT,), draft.shapes[last][0], NUM_OUT, name="g")
            return draft.call("add", (out, twin), (NUM_OUT,))
    return out


def _conv_ending(draw: st.DrawFn, draft: Draft, last: str) -> str:
    """End as SqueezeNet does: a 1x1 convolution, perhaps a ReLU, the mean over positions."""
    channels, side, _ = draft.shapes[last]
    settings = (channels, NUM_OUT, 1, 1, 1, True)
    last = draft.layer("conv", last, (NUM_OUT, side, side), *settings, name="conv_end")
    if draw(st.booleans()):
        last = draft.layer("relu", last, (NUM_OUT, side, side))
    last = draft.layer("global_pool", last, (NUM_OUT, 1, 1))
    return draft.call("flatten", (last,), (NUM_OUT,))
