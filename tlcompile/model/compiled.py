"""The compiled model: an nn.Module whose tensors have the base's names, and whose freeze holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from tlcompile.graph.fold import Fold
from tlcompile.graph.program import Program
from tlcompile.graph.split import Boundary
from tlcompile.model.part import part_of

WHOLE, TRAIN, PREFIX = "whole", "train", "prefix"
SUFFIX, SUFFIX_TRAIN = "suffix", "suffix_train"


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the compiled model, or of its base.

    Attributes:
        name: In the state dict; the base's name, or `<added layer>.weight`.
        shape: Its sizes.
        origin: loaded (the base's own), random (the base's own, without weights), added, replaced
            or resized.
        state: frozen or trains (buffers of trainable layers move too); dropped: the base has it,
            the model has not.
        kind: parameter or buffer.
        init: By which initialiser it is new; else empty.
        source: Whose values a loaded one has: the weights' name, a file, `given` by the caller.
        was: Its sizes in the base, where they were others.
    """

    name: str
    shape: tuple[int, ...]
    origin: str
    state: str
    kind: str
    init: str = ""
    source: str = ""
    was: tuple[int, ...] | None = None


@dataclass(frozen=True)
class VertexRow:
    """One vertex of the compiled model, or of its base, in the order of computation.

    Attributes:
        name: Its qualified name.
        kind: Its module's class, or its operation.
        shape: What it computes; N is the batch.
        reads: The vertices that it reads.
        num_parameters: Of its own.
        origin: kept, added, replaced or resized; of a removed vertex the reason.
        frozen: Whether it learns nothing.
        was: The shape before the edits, where it was another; else empty.
        init: By which initialiser its weights are new; else empty.
        flops: Of one image, forward; 0 for a removed vertex.
        num_bytes: Of what it computes for one image.
    """

    name: str
    kind: str
    shape: str
    reads: tuple[str, ...]
    num_parameters: int
    origin: str
    frozen: bool
    was: str = ""
    init: str = ""
    flops: int = 0
    num_bytes: int = 0


@dataclass(frozen=True)
class Summary:
    """What the compiler did, vertex by vertex: data for tables, without the graph.

    Attributes:
        model: The base's name.
        vertices: In the order of computation.
        outputs: Vertices that are returned.
        removed: Vertices of the base that were taken away, as they were; `origin` is the reason.
        notes: Sentences for the plan.
        sample_shapes: Shape of one sample of each input, without the batch.
        dtypes: Of inputs that are not float32, in torch's words.
        source: Whose values the kept tensors have: the weights' name, a file, `given`, `none`.
        inits: By which initialiser a new tensor gets its values, by name.
        old_shapes: Sizes in the base of the tensors that changed them, by name.
        dropped_tensors: Tensors of the base that the model has not.
        stages: The last vertex of each stage, where the recipe says something by stages.
    """

    model: str
    vertices: tuple[VertexRow, ...]
    outputs: tuple[str, ...]
    removed: tuple[VertexRow, ...]
    notes: tuple[str, ...]
    sample_shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str] = field(default_factory=dict)
    source: str = ""
    inits: dict[str, str] = field(default_factory=dict)
    old_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dropped_tensors: tuple[TensorRow, ...] = ()
    stages: dict[str, str] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, str]:
        """Return the reason for each vertex that was taken away."""
        return {row.name: row.origin for row in self.removed}


@dataclass(frozen=True)
class Frozen:
    """What is frozen, by name.

    Attributes:
        modules: Modules that stay in eval mode.
        tensors: Parameters and buffers that never move.
        awake: Modules inside frozen ones that are vertices of their own, and learn.
    """

    modules: frozenset[str]
    tensors: frozenset[str]
    awake: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Parts:
    """The programs over the module tree, by name.

    Attributes:
        programs: By what they compute: `whole`, `prefix`, ...
        boundary: What crosses from prefix to suffix.
        folds: The norms of the prefix that can be folded into the layer before them.
        not_cacheable: Why nothing of the frozen part can be kept; else empty.
        cache: The programs as functions.
    """

    programs: dict[str, Program]
    boundary: tuple[Boundary, ...] = ()
    folds: tuple[Fold, ...] = ()
    not_cacheable: str = ""
    cache: dict[str, Callable[..., Any]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, name: str, root: nn.Module, *inputs: Any) -> Any:
        """Run one program on the tree."""
        if name not in self.cache:
            self.cache[name] = self.programs[name].function()
        return root(self.cache[name], *inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        return self  # text and functions of text; nothing here belongs to one model

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled functions do not pickle.
        return Parts, (self.programs, self.boundary, self.folds, self.not_cacheable)


class _Root(nn.Module):
    """The bare module tree. Programs are called through it, so that its hooks see all of them."""

    def forward(self, program: Callable[..., Any], *inputs: Any) -> Any:
        """Run a program on the tree."""
        return program(self, *inputs)


class TreeModule(nn.Module):
    """A module tree at its own top level, run by programs. Frozen modules stay in eval mode.

    Names and order of the state dict are the tree's; deepcopy and pickle keep what is frozen.

    Attributes:
        frozen: What is frozen, by name.
    """

    _root: nn.Module
    frozen: Frozen

    def __init__(self, tree: nn.Module, parts: Parts, frozen: Frozen) -> None:
        super().__init__()
        # Programs run on this bare root, whose dicts are ours: a child called `prefix` hides nothing.
        root = _Root()
        for owner in (self, root):
            owner._parameters = tree._parameters
            owner._buffers = tree._buffers
            owner._modules = tree._modules
            owner._non_persistent_buffers_set = tree._non_persistent_buffers_set
        object.__setattr__(self, "_root", root)
        # MNASNet rebuilds itself on loading a state dict that says another version than its own.
        self._version = tree._version
        self._parts = parts
        # Around nn.Module, which refuses an attribute of the same name as a child.
        object.__setattr__(self, "frozen", frozen)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the trainable part; frozen modules stay in eval mode."""
        super().train(mode)
        if hasattr(self, "frozen"):
            for name, module in self._root.named_modules(remove_duplicate=False):
                if module.training and name in self.frozen.modules:  # those inside follow it
                    module.eval()
            for name in self.frozen.awake:
                self._root.get_submodule(name).train(mode)
        return self

    def _run(self, evaluating: str, training: str, *inputs: Any) -> Any:
        """Run the program of the present mode; both modes share one where they return the same."""
        train = self.training and training in self._parts.programs
        return self._parts(training if train else evaluating, self._root, *inputs)


class Half(TreeModule):
    """Prefix or suffix of a compiled model as a module of its own; its tensors are the model's.

    It has what it uses and no more, under the model's names. What it learns, the model has learned;
    a deepcopy is independent. After the model's tensors were exchanged for others (`assign=True`),
    take it anew.
    """

    def __init__(self, model: CompiledModel, evaluating: str, training: str) -> None:
        programs = model._parts.programs
        named = [{*programs[n].targets} for n in (evaluating, training) if n in programs]
        used = frozenset().union(*named)
        tree = part_of(model.tree, used, model.targets - used)
        modules, tensors = dict(tree.named_modules()).keys(), tree.state_dict().keys()
        frozen = model.frozen
        within = Frozen(frozen.modules & modules, frozen.tensors & tensors, frozen.awake & modules)
        super().__init__(tree, model._parts, within)
        self._programs = evaluating, training
        self.train(model.training)

    def forward(self, *inputs: Any) -> Any:
        """Compute what `prefix` or `suffix` of the model computes."""
        return self._run(*self._programs, *inputs)


class CompiledModel(TreeModule):
    """The base after its edits. Verified by construction.

    It adopts the base's module tree at its own top level, so names and order of the state dict are
    the base's whatever the freeze point. `train()` keeps frozen modules in eval mode; deepcopy and
    pickle keep that.

    Attributes:
        frozen: What is frozen, by name.
        origins: Origin of each tensor that is not kept: added or replaced.
        summary: What the compiler did.
    """

    origins: dict[str, str]
    summary: Summary

    def __init__(
        self,
        tree: nn.Module,
        parts: Parts,
        frozen: Frozen,
        origins: dict[str, str],
        summary: Summary,
    ) -> None:
        super().__init__(tree, parts, frozen)
        object.__setattr__(self, "origins", origins)
        object.__setattr__(self, "summary", summary)
        self.hold_freeze()

    def forward(self, *inputs: Any) -> Any:
        """Compute what the base computes after its edits; `training` decides the mode."""
        return self._run(WHOLE, TRAIN, *inputs)

    def hold_freeze(self) -> None:
        """Set which parameters want a gradient, and which modules stay in eval mode.

        Called again after tensors are exchanged, or another phase has used the same tree.
        """
        self.train(self.training)
        for name, parameter in self.named_parameters(remove_duplicate=False):
            if parameter.is_floating_point():  # numbers of channels and the like never want one
                parameter.requires_grad_(name not in self.frozen.tensors)

    def frozen_as(self, other: CompiledModel) -> CompiledModel:
        """Return this model with another freeze point; both share every tensor.

        The one that was used last decides what wants a gradient: call `hold_freeze` on going back.

        Args:
            other: The same recipe but for what it freezes, compiled; it may live on meta.
        """
        return CompiledModel(self, other._parts, other.frozen, self.origins, other.summary)

    @property
    def tree(self) -> nn.Module:
        """The bare module tree, in which nothing of ours stands before a child of the same name."""
        return self._root

    @property
    def targets(self) -> frozenset[str]:
        """The places in the tree of all modules and tensors that are vertices."""
        every = (program.targets for program in self._parts.programs.values())
        return frozenset().union(*every)

    @property
    def suffix_targets(self) -> frozenset[str]:
        """The places in the tree of all modules and tensors that the trainable part uses."""
        programs = self._parts.programs
        named = (programs[n].targets for n in (SUFFIX, SUFFIX_TRAIN) if n in programs)
        return frozenset().union(*named)

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """The tensors between prefix and suffix; empty where nothing is frozen, or can be kept."""
        return self._parts.boundary

    @property
    def prefix_program(self) -> Program:
        """What `prefix` runs on the tree; only where there is a boundary."""
        return self._parts.programs[PREFIX]

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The norms of the prefix that can be folded into the layer before them."""
        return self._parts.folds

    @property
    def not_cacheable(self) -> str:
        """Why nothing of the frozen part can be kept, in one sentence; else empty."""
        return self._parts.not_cacheable

    def prefix(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the frozen part, without gradients.

        Shape:
            in: as the model.  out: one tensor (N, *shape) for each entry of `boundary`; the inputs
            where nothing is frozen, or can be kept.
        """
        with torch.no_grad():
            computed: tuple[Tensor, ...] = self._parts(PREFIX, self._root, *inputs)
        return computed

    def suffix(self, *boundary: Tensor) -> Any:
        """Run the trainable part on boundary tensors; `suffix(*prefix(x))` equals the model."""
        return self._run(SUFFIX, SUFFIX_TRAIN, *boundary)

    def prefix_module(self) -> Half:
        """Return the frozen part as a module of its own, which shares the model's tensors.

        Shape:
            in: as the model.  out: as `prefix`; `suffix_module()` takes that.
        """
        return Half(self, PREFIX, PREFIX)

    def suffix_module(self) -> Half:
        """Return the trainable part as a module of its own: training it trains the model.

        Shape:
            in: one tensor (N, *shape) for each entry of `boundary`.  out: as the model.
        """
        return Half(self, SUFFIX, SUFFIX_TRAIN)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that learn, by name."""
        return (
            (name, p)
            for name, p in self.named_parameters()
            if name not in self.frozen.tensors and p.is_floating_point()
        )

    def tensors(self) -> list[TensorRow]:
        """Return every tensor with its origin and state, in the order of the state dict.

        Tensors of the base that the model has not come last.
        """
        parameters = dict(self.named_parameters(remove_duplicate=False))
        rows = [
            self._tensor_row(name, tuple(tensor.shape), name in parameters)
            for name, tensor in self.state_dict().items()
        ]
        return [*rows, *self.summary.dropped_tensors]

    def _tensor_row(self, name: str, shape: tuple[int, ...], is_parameter: bool) -> TensorRow:
        source = self.summary.source
        own = "random" if source == "none" else "loaded"
        origin = self.origins.get(name, own)
        return TensorRow(
            name,
            shape,
            origin,
            "frozen" if name in self.frozen.tensors else "trains",
            "parameter" if is_parameter else "buffer",
            self.summary.inits.get(name, ""),
            source if origin == "loaded" else "",
            self.summary.old_shapes.get(name),
        )
