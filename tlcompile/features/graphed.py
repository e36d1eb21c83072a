"""Replay what a GPU does for one chunk as one CUDA graph: launching each kernel costs more than some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlcompile.errors.base import one_line
from tlcompile.features.prefix import Rows

WARM_UP = 3  # runs before a capture: libraries choose kernels and allocate; torch's own advice


@dataclass
class Graphed:
    """Captures what it runs by the first call, for inputs of that shape; others run as they are.

    Attributes:
        run: What computes, on the GPU.
        say: Takes the line that says why nothing could be captured.
    """

    run: Callable[..., Rows]
    say: Callable[[str], None]
    _shapes: list[torch.Size] = field(default_factory=list)
    _inputs: list[Tensor] = field(default_factory=list)
    _outputs: Rows = ()
    _graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Rows:
        """Compute; the tensors are the caller's own."""
        shapes = [tensor.shape for tensor in inputs]
        if not self._shapes:
            self._shapes = shapes
            self._capture(inputs)
        if self._graph is None or shapes != self._shapes:
            return self.run(*inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return tuple(tensor.clone() for tensor in self._outputs)  # the next replay overwrites them

    def _capture(self, inputs: Rows) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.run(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                self._outputs = self.run(*self._inputs)
        except RuntimeError as cause:  # an operation that asks the GPU for a value, or memory
            self.say(
                f"features    no CUDA graph ({one_line(cause)}); kernels are launched one by one"
            )
            return
        self._graph = graph
