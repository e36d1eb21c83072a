"""A saved model's weights, and the golden sample that shows that a model built again is the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlcompile.durable.shared_file import SharedFile
from tlcompile.errors.base import Span, TLCompileError
from tlcompile.errors.training import GoldenMismatchError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.finished import FROZEN, GOLDEN, WEIGHTS, FinishedRun
from tlcompile.zoo.building import load_exactly

# Relative to the largest output: versions and devices differ in the last bits (1e-6 .. 1e-4, TF32
# included), another model differs in the first.
GOLDEN_TOLERANCE = 1e-3

FORMAT = {"format": "pt"}  # what other readers of safetensors want to know


@dataclass(frozen=True)
class FrozenFile:
    """What training leaves as it is, in a file of its own, for all bundles that have it.

    Attributes:
        names: Of the tensors in it.
        file: Written with the first bundle, linked in the others.
    """

    names: frozenset[str]
    file: SharedFile

    @classmethod
    def of(cls, model: CompiledModel, names: frozenset[str]) -> FrozenFile:
        """Return that of a model, of which these tensors alone live on; read when it is written."""
        tensors = {name: t for name, t in model.state_dict().items() if name in names}
        return cls(names, SharedFile(lambda: _serialised(tensors)))


def tensor_files(
    model: CompiledModel,
    boundary: tuple[Tensor, ...] | None = None,
    frozen: FrozenFile | None = None,
) -> dict[str, SharedFile]:
    """Return a model's weights and golden sample as they are now, as files by name.

    Args:
        model: In any mode, on any device.
        boundary: What `golden_rows` gave, where the frozen part is still the same.
        frozen: What goes into a file of its own; None: one file has all weights.
    """
    apart = frozen.names if frozen else frozenset()
    weights = _serialised({n: t for n, t in model.state_dict().items() if n not in apart})
    golden = save_tensors(golden_sample(model, boundary), FORMAT)
    files = {WEIGHTS: SharedFile(lambda: weights), GOLDEN: SharedFile(lambda: golden)}
    return {**files, FROZEN: frozen.file} if frozen else files


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: _on_disk(tensor) for name, tensor in tensors.items()}, FORMAT)


def load_saved(model: nn.Module, run: FinishedRun, where: Span | None = None) -> None:
    """Load a finished run's weights into its model, built again.

    Args:
        model: A CompiledModel with real tensors.
        run: The run.
        where: The place of a recipe that asks for it.

    Raises:
        DamagedFileError: A file is not as it was written.
        WeightsMismatchError: The tensors are another model's.
        GoldenMismatchError: It does not compute what it computed when it was saved.
    """
    assert isinstance(model, CompiledModel)
    try:
        tensors = {n: t for name in run.weights for n, t in load_tensors(run.read(name)).items()}
        load_exactly(model, tensors, source=str(run.bundle / WEIGHTS), model=run.recipe.name)
        _compare_golden(model, load_tensors(run.read(GOLDEN)), run.bundle)
    except TLCompileError as error:
        raise error.at(where) from error.__cause__


def _on_disk(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def golden_rows(model: CompiledModel) -> tuple[Tensor, ...]:
    """Return what the frozen part computes of the golden sample."""
    device = next(iter(model.state_dict().values())).device
    return model.prefix(*(_sample(model, n).to(device) for n in model.summary.sample_shapes))


def golden_sample(
    model: CompiledModel, boundary: tuple[Tensor, ...] | None = None
) -> dict[str, Tensor]:
    """Return fixed inputs and the model's output for it, to be compared after loading."""
    inputs = {name: _sample(model, name) for name in model.summary.sample_shapes}
    device = next(iter(model.state_dict().values())).device
    mode = model.training
    model.eval()
    with torch.no_grad():
        if boundary is None:
            returned = model(*(value.to(device) for value in inputs.values()))
        else:
            returned = model.suffix(*boundary)
    model.train(mode)
    outputs = {"output": returned}
    if not isinstance(returned, Tensor):  # a dictionary, a tuple, or one in another
        paths, _ = pytree.tree_flatten_with_path(returned)
        outputs = {pytree.keystr(path): value for path, value in paths}
    given = {f"input.{name}": value for name, value in inputs.items()}
    return {**given, **{f"output.{k}": _on_disk(v) for k, v in outputs.items()}}


def _sample(model: CompiledModel, name: str) -> Tensor:
    """Return a fixed input: numbers from -2 to 2, and zeros where they are whole."""
    shape = model.summary.sample_shapes[name]
    if name in model.summary.dtypes:
        return torch.zeros((1, *shape), dtype=getattr(torch, model.summary.dtypes[name]))
    return torch.linspace(-2, 2, steps=torch.Size(shape).numel()).reshape(1, *shape)


def _compare_golden(model: CompiledModel, saved: dict[str, Tensor], path: Path) -> None:
    for name, now in golden_sample(model).items():
        then = saved.get(name)
        fits = then is not None and then.shape == now.shape
        scale = float(then.abs().max()) if fits and then is not None else 0.0
        difference = float((now - then).abs().max()) if fits and then is not None else math.inf
        tolerance = GOLDEN_TOLERANCE * max(scale, 1e-6)
        if not difference <= tolerance:  # so that NaN differs too
            raise GoldenMismatchError(path=str(path), difference=difference, tolerance=tolerance)
