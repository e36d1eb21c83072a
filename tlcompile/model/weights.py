"""Fill a compiled model's meta tensors: kept ones from the base, new ones from their builders."""

from __future__ import annotations

from torch import nn

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.surgery import set_module
from tlcompile.model.compiled import CompiledModel


def fill(model: CompiledModel, model_graph: ModelGraph, base: nn.Module) -> None:
    """Put real tensors in the place of meta ones; the base's are adopted, not copied.

    Args:
        model: A compiled model on meta.
        model_graph: Its graph, with builders of new modules.
        base: The base with its weights; it gives its tensors away.
    """
    for target, build in model_graph.builders.items():
        if _has(model, target):
            children = dict(model.get_submodule(target).named_children())
            built = build(_module(base, target)).train(model.get_submodule(target).training)
            for name, child in children.items():
                built.add_module(name, child)
            set_module(model, target, built)
    for path, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is not None and tensor.is_meta:
                    full = f"{path}.{name}" if path else name
                    written = model_graph.constants.get(full)
                    tensors[name] = _tensor(base, full) if written is None else written.clone()
    model.hold_freeze()
    model.train(model.training)


def _has(model: nn.Module, target: str) -> bool:
    return target in dict(model.named_modules())


def _module(base: nn.Module, target: str) -> nn.Module | None:
    return dict(base.named_modules()).get(target)


def _tensor(base: nn.Module, path: str) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    tensor: nn.Parameter = getattr(base.get_submodule(owner), name)
    return tensor
