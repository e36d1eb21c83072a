"""Run the frozen prefix as fast as the machine can: norms folded, channels-last, fp32 or bf16.

`exact` is the model's own prefix. Here are the two others: `fp32-fused` and `fast`. Each proves on
the first images that it computes what `exact` computes, or says that it cannot.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.errors.base import one_line
from tlcompile.errors.precision import NotHardenedError
from tlcompile.features.folded import channels_last, copy_prefix, fold_norms, round_matrices
from tlcompile.features.graphed import Graphed
from tlcompile.features.pass_size import pass_size
from tlcompile.features.prefix import Prefix, Rows
from tlcompile.model.compiled import CompiledModel

EXACT, FUSED, FAST = "exact", "fp32-fused", "fast"
Run = Callable[..., Rows]
Say = Callable[[str], None]

# |computed - exact| / |exact| of a boundary tensor, in the Euclidean norm, from which on it is not
# what was asked for. Measured at the head of torchvision's classifiers, with random weights:
# fp32-fused 0 to 3e-7; AlexNet and VGG 0.8e-6 to 2.2e-6, because channels-last kernels add up all
# 9 * 512 products of a pixel in one running sum. fast 2.4e-3 to 7.4e-3, maxvit_t 1.2e-2.
LIMITS = {FUSED: 1e-5, FAST: 0.1}
PROVED = 2  # images of the first chunk

# FLOPs of all images together from which torch.compile pays, by device. Measured on two cores with
# AVX-512 BF16, fp32-fused / fast: compiling takes 17 / 9 CPU s for resnet18, which saves 2.6 / 1.6 ms
# an image of 3.6 GFLOP; 20 / 10 s, 20 / 8 ms, 8.2 GFLOP for resnet50; 24 / 26 s, 0.3 / 0.2 ms, 0.12
# GFLOP for mobilenet_v3_small. So it pays from 0.8e13 to 2.3e13 FLOPs on: 2,500 images of resnet50.
# CUDA: not measured here; timm's figures for resnet50 (4,218 to 8,237 images/s) and 40 s.
COMPILE_PAYS = {"cpu": 2e13, "cuda": 3e15}


def open_prefix(
    model: CompiledModel,
    batch_size: int,
    precision: str,
    device: torch.device,
    *,
    images: int,
    say: Say = lambda _line: None,
) -> Prefix:
    """Return the frozen part, ready to be run in a precision.

    Args:
        model: The compiled model, on the device.
        batch_size: Images a pass; in exact more where a row would depend on its place.
        precision: exact, fp32-fused or fast.
        device: Where to compute.
        images: How many will come.
        say: Takes a line for the user, where something has to be done more slowly.
    """
    if precision == EXACT:
        return Prefix(model, pass_size(model, batch_size, device), device)
    hard = harden(model, precision, device, images=images, say=say) if model.boundary else None
    return Prefix(model, batch_size, device, hard)


def harden(
    model: CompiledModel, precision: str, device: torch.device, *, images: int, say: Say
) -> Run:
    """Return what computes the boundary of a model's prefix, not to the bit.

    Nothing is copied or compiled before the first call.

    Args:
        model: With a frozen part; its tensors stay as they are.
        precision: fp32-fused, or fast: matrices in bf16, sums in fp32, rows in bf16.
        device: Where to compute.
        images: How many will come; compiling pays for many.
        say: Takes a line for the user, where something has to be done more slowly.

    Returns:
        Inputs (N, ...) to one tensor (N, *shape) for each boundary, on the device. N must stay the
        same. The tensors are inference tensors: clone what a gradient has to pass.

    Raises:
        NotHardenedError: By the first call: this prefix cannot be computed so.
    """
    assert precision in (FUSED, FAST), precision
    return _Hardened(model, precision, device, images, say)


class Prepared(nn.Module):
    """A prefix on a copy of its modules, which becomes folded, rounded and channels-last.

    Args:
        root: The copy; norms are folded.
        function: The prefix as a function of the copy.
        precision: fp32-fused or fast.
        device: Where to compute.
    """

    def __init__(
        self, root: nn.Module, function: Run, precision: str, device: torch.device
    ) -> None:
        super().__init__()
        self.dtype = half_of(device) if precision == FAST else None
        self.device = device
        self.function = function
        self.root = root.to(device)
        if self.dtype is not None:
            round_matrices(root, self.dtype)
        self.channels_last = channels_last(root)

    def forward(self, *inputs: Tensor) -> Rows:
        """Compute the boundary; `fast` gives it in bf16."""
        half = self.dtype is not None
        # Without its cache of weights: they are in bf16 already.
        autocast = torch.autocast(self.device.type, self.dtype, enabled=half, cache_enabled=False)
        with autocast:
            computed = self.function(self.root, *map(self._laid_out, inputs))
        return tuple(_rounded(tensor) for tensor in computed) if half else computed

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if self.channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def half_of(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that a device multiplies fast."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


@dataclass
class _Hardened:
    """Built by the first call, which has images to prove it on."""

    model: CompiledModel
    precision: str
    device: torch.device
    images: int
    say: Say
    run: Run | None = None

    def __call__(self, *inputs: Tensor) -> Rows:
        given = [tensor.to(self.device) for tensor in inputs]
        if self.run is None:
            self.run = self._built(given)
        with torch.inference_mode():
            return self.run(*given)

    def _built(self, inputs: list[Tensor]) -> Run:
        few = [tensor[:PROVED] for tensor in inputs]
        # Not in inference mode: what a module of the model keeps for itself has to stay trainable.
        exact = self.model.prefix(*(tensor.to(_device_of(self.model)) for tensor in few))
        with torch.inference_mode():
            prepared = self._proved(few, exact)
            if self.images * _flops(self.model) >= COMPILE_PAYS.get(self.device.type, math.inf):
                self._compile(prepared, inputs, exact)
        return Graphed(prepared, self.say) if self.device.type == "cuda" else prepared

    def _proved(self, few: list[Tensor], exact: Rows) -> Prepared:
        """Return the prefix on its copy, which computes what the model's own does.

        Nothing slower is taken in its place: the key of what is stored says how it was computed.
        """
        try:
            root = copy_prefix(self.model)
            fold_norms(root, self.model.folds)
            function = self.model.prefix_program.function()
            prepared = Prepared(root, function, self.precision, self.device)
            differences = _differences(prepared(*few), exact)
        except torch.OutOfMemoryError:
            raise
        except Exception as cause:  # exact has just run: whatever a module raises is about this
            raise self._refusal(f"{type(cause).__name__}: {cause}") from cause
        self._refuse_other_numbers(differences)
        return prepared

    def _refuse_other_numbers(self, differences: list[float]) -> None:
        for one, difference in zip(self.model.boundary, differences, strict=True):
            if not difference <= LIMITS[self.precision]:
                raise self._refusal(f"'{one.vertex}' differs from exact by {difference:.1e} of it")

    def _refusal(self, reason: str) -> NotHardenedError:
        return NotHardenedError(
            model=self.model.summary.model,
            precision=self.precision,
            reason=reason,
            wanted=f"what exact computes, but for {LIMITS[self.precision]:g} of it",
            key=("features", "precision"),
        )

    def _compile(self, prepared: Prepared, inputs: list[Tensor], exact: Rows) -> None:
        """Compile its function for inputs of this shape; where that fails, it stays as it is.

        The function, whose code is this model's own: torch.compile gives up, without a word, on code
        that it has compiled for eight others.
        """
        slower = "the frozen part runs without torch.compile"
        if not _has_compiler():
            self.say(f"features    no C++ compiler on this machine: {slower}")
            return
        # One thread: workers of the compiler would outlive the run.
        options: dict[str, Any] = {"freezing": True, "compile_threads": 1}
        plain = prepared.function
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about devices that this machine does not have
                prepared.function = torch.compile(plain, dynamic=False, options=options)
                self._refuse_other_numbers(_differences(prepared(*inputs), exact))
        except Exception as cause:  # compilers and their tools fail in many ways, and can be spared
            prepared.function = plain
            why = cause.reason if isinstance(cause, NotHardenedError) else str(cause)
            self.say(f"features    {slower}: {one_line(why)}")


def _device_of(model: CompiledModel) -> torch.device:
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))


def _flops(model: CompiledModel) -> int:
    """Return what the prefix computes for one image."""
    return sum(row.flops for row in model.summary.vertices if row.frozen)


def _differences(computed: Rows, exact: Rows) -> list[float]:
    """Return |computed - exact| / |exact| for each boundary tensor; NaN where one of them has any."""
    found = []
    for one, other in zip(computed, exact, strict=True):
        wanted = other.to(one.device).double()
        difference = (one[: len(wanted)].double() - wanted).norm()
        found.append(0.0 if difference == 0 else (difference / wanted.norm()).item())
    return found


def _has_compiler() -> bool:
    """Tell whether there is the C++ compiler that torch.compile would call."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    words = os.environ.get("CXX", default).split()
    return bool(words) and shutil.which(words[0]) is not None
