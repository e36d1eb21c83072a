"""Fill a compiled model's meta tensors: kept ones from the base, new ones from their builders."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.resized import ResizedParameter
from tlcompile.graph.shapes import tensors_in
from tlcompile.graph.surgery import set_module
from tlcompile.model.compiled import CompiledModel


def fill(model: CompiledModel, model_graph: ModelGraph, base: nn.Module) -> None:
    """Put real tensors in the place of meta ones; the base's are adopted, not copied.

    Args:
        model: A compiled model on meta.
        model_graph: Its graph, with builders of new modules.
        base: The base with its weights; it gives its tensors away.
    """
    base = base.tree if isinstance(base, CompiledModel) else base
    for target, build in model_graph.builders.items():
        old = _module(model.tree, target)
        if old is not None and not isinstance(build, ResizedParameter):
            built = build(_module(base, target)).train(old.training)
            for name, child in old.named_children():
                if (
                    name not in built._modules
                ):  # its own are real; what follows in its region is not
                    built.add_module(name, child)
            set_module(model, target, built)
    for path, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is not None and tensor.is_meta:
                    full = f"{path}.{name}" if path else name
                    tensors[name] = _real(model_graph, base, full)
        _restore_attributes(module, _module(base, path))
    model.hold_freeze()


def _restore_attributes(module: nn.Module, base: nn.Module | None) -> None:
    """Take plain tensors from the base where running on meta has written others (anchors)."""
    for name, value in list(vars(module).items()):
        written = name[0] != "_" and any(tensor.is_meta for tensor in tensors_in(value))
        if written and base is not None:
            setattr(module, name, copy.deepcopy(getattr(base, name, None)))


def _real(model_graph: ModelGraph, base: nn.Module, path: str) -> Any:
    """Return the base's tensor of this name, or the one that was made of it."""
    written, build = model_graph.constants.get(path), model_graph.builders.get(path)
    tensor = _tensor(base, path) if written is None else written.clone()
    return build.parameter(tensor) if isinstance(build, ResizedParameter) else tensor


def _module(root: nn.Module, target: str) -> nn.Module | None:
    try:
        return root.get_submodule(target)
    except AttributeError:
        return None


def _tensor(base: nn.Module, path: str) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    tensor: nn.Parameter = getattr(base.get_submodule(owner), name)
    return tensor
