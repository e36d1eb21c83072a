"""Which channel of a resized model is which channel of the base, vertex by vertex."""

from __future__ import annotations

import torch
from torch import fx, nn

from tlcompile.errors.resize import OverlapUnknownError
from tlcompile.graph.names import name_of
from tlcompile.graph.operations import (
    CONCATENATIONS,
    VIEWS,
    changed_axes,
    concatenated_axis,
    strides,
    word_of,
)
from tlcompile.graph.shapes import kind_of
from tlcompile.graph.width_run import WidthRun
from tlcompile.graph.widths import Role, Widths, role_of, widths_of

# Equal sizes before and after, and yet another order of channels, or a part of them.
_REORDER = {
    "channel_shuffle", "ChannelShuffle", "flip", "gather", "getitem", "index_select", "roll",
    "sort", "take_along_dim", "topk", "unbind", "chunk", "split", "stack",
}  # fmt: skip
_FLATTENS = VIEWS | {"flatten", "Flatten"}


class Overlap:
    """For each channel of a vertex the base's channel that it was, or -1 for a new one."""

    def __init__(self, run: WidthRun) -> None:
        self._run = run
        self._known: dict[fx.Node, torch.Tensor] = {}

    def of(self, node: fx.Node) -> torch.Tensor:
        """Return the base's channels along the one axis on which a vertex has another size.

        Raises:
            OverlapUnknownError: Nobody knows.
        """
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def of_layer(
        self, node: fx.Node, module: nn.Module, new: Widths
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the maps of a layer's outputs and of its inputs.

        Where what it reads is not there yet, its first inputs are the base's.
        """
        old, source = widths_of(module), node.all_input_nodes[0]
        rows, columns = first(old.out, new.out), first(old.in_, new.in_)
        if role_of(module) is Role.FOLLOWS:
            rows = self.of(node)
        if new.in_ != old.in_ and self._run.changed(source):
            columns = self.of(source)
        return rows, columns

    def _find(self, node: fx.Node) -> torch.Tensor:
        old, new = self._sizes(node)
        role = self._role(node)
        if role is Role.DECIDES or node.op == "get_attr":
            return first(old, new)
        kind = kind_of(self._run.model_graph.module, node)
        if role is Role.FOLLOWS:
            source = node.all_input_nodes[0]
            width = self._sizes(source)[0]
            return _merged(self.of(source), width, 1, old // width)
        if kind in _FLATTENS:
            return self._flattened(node)
        if word_of(node) in CONCATENATIONS and self._axis(node) == concatenated_axis(node):
            return self._concatenated(node)
        changed = [n for n in node.all_input_nodes if self._run.changed(n)]
        same = bool(changed) and all(self._sizes(n) == (old, new) for n in changed)
        maps = [self.of(n) for n in changed] if same and kind not in _REORDER else []
        if not maps or not all(torch.equal(one, maps[0]) for one in maps):
            raise self._unknown(node)
        return maps[0]

    def _role(self, node: fx.Node) -> Role | None:
        if node.op != "call_module":
            return None
        return role_of(self._run.model_graph.module.get_submodule(str(node.target)))

    def _concatenated(self, node: fx.Node) -> torch.Tensor:
        axis, offset = self._axis(node), 0
        parts: list[torch.Tensor] = []
        for source in node.args[0]:  # type: ignore[union-attr]
            assert isinstance(source, fx.Node)
            width = self._run.before[source].shape[axis]
            part = self.of(source) if self._run.changed(source) else torch.arange(width)
            parts.append(torch.where(part < 0, part, part + offset))
            offset += width
        return torch.cat(parts)

    def _flattened(self, node: fx.Node) -> torch.Tensor:
        """Return the map behind an axis that merges the channels with what is around them."""
        source = node.all_input_nodes[0]
        low, high = strides(self._run.before[source], self._axis(source))
        merged_low, merged_high = strides(self._run.before[node], self._axis(node))
        if low % merged_low or merged_high % high:
            raise self._unknown(node)
        width = self._sizes(source)[0]
        return _merged(self.of(source), width, merged_high // high, low // merged_low)

    def _axis(self, node: fx.Node) -> int:
        before, after = self._run.before[node], self._run.after[node]
        if not isinstance(before, torch.Tensor):
            raise self._unknown(node)  # the parts of a chunk
        axes = changed_axes(before, after) if before.dim() == after.dim() else []
        if len(axes) != 1:
            raise self._unknown(node)
        return axes[0]

    def _sizes(self, node: fx.Node) -> tuple[int, int]:
        axis = self._axis(node)
        return self._run.before[node].shape[axis], self._run.after[node].shape[axis]

    def _unknown(self, node: fx.Node) -> OverlapUnknownError:
        kind = kind_of(self._run.model_graph.module, node)
        return OverlapUnknownError(name=name_of(node), kind=kind)


def first(old: int, new: int) -> torch.Tensor:
    """Return the map of a layer that decides its width: its first channels are the base's."""
    return torch.cat([torch.arange(min(old, new)), torch.full((max(new - old, 0),), -1)])


def _merged(channels: torch.Tensor, width: int, outer: int, inner: int) -> torch.Tensor:
    """Return the map of an axis (outer, channels, inner) that is one axis now."""
    at = torch.arange(outer)[:, None, None] * width + channels[None, :, None]
    merged = at * inner + torch.arange(inner)
    return torch.where(channels[None, :, None] < 0, -1, merged).flatten()
