"""Cases of what is around the model: preprocessing, libraries, machine, precision."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import PIL
import pytest
import torch
from PIL import features as pillow

from reliability.key_code import HELPERS, LEAF, with_code
from reliability.key_world import (
    HIT,
    MISS,
    PLAIN,
    Case,
    Ground,
    Pair,
    Wanted,
    case,
    plain_model,
    sets_of,
)
from tlcompile.features import arithmetic, canonical, fingerprint
from tlcompile.zoo.preprocessing import Preprocessing


def described(**change: Any) -> Wanted:
    """Return the sets of the plain network with other arguments of `describe`."""
    return sets_of(plain_model(), **{"preprocessing": PLAIN, **change})


PREPROCESSINGS: dict[str, dict[str, Any]] = {
    "resize": {"resize": 11},
    "resize of both sides": {"resize": (10, 10)},
    "crop": {"crop": 7},
    "interpolation": {"interpolation": "bicubic"},
    "antialias": {"antialias": False},
    "mean": {"mean": (0.5, 0.5, 0.4)},
    "the order of means": {"mean": (0.4, 0.5, 0.5)},
    "std": {"std": (0.25, 0.25, 0.2)},
    "channels": {"channels": 1},
}
for _name, _change in PREPROCESSINGS.items():
    MISS[f"preprocessing: {_name}"] = lambda _ground, _change=_change: (
        described(),
        described(preprocessing=dataclasses.replace(PLAIN, **_change)),
    )


def machine_case(name: str, change: Callable[[pytest.MonkeyPatch], object], **args: Any) -> None:
    def run(ground: Ground) -> Pair:
        _fake_gpu(ground.patch)
        before = described(**args)
        change(ground.patch)
        return before, described(**args)

    case(MISS, name)(run)


def _fake_gpu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "get_device_name", lambda _device: "H100")
    patch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    patch.setattr(torch.backends.cudnn, "version", lambda: 90000)


def setting(target: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, value)


def flipped(target: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, not getattr(target, name))


def _processor(key: str) -> Callable[[pytest.MonkeyPatch], None]:
    other = {**arithmetic.processor(), key: "another"}
    return setting(arithmetic, "processor", lambda: other)


def _pillow(library: str) -> Callable[[pytest.MonkeyPatch], None]:
    version = pillow.version
    return setting(pillow, "version", lambda name: "0" if name == library else version(name))


def _torchvision(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(importlib.metadata, "version", lambda _name: "0.99")


def _without_denormals(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "tensor", lambda *_args, **_named: torch.zeros(1))


MACHINE: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "the format of the fingerprint": setting(fingerprint, "FORMAT", 99),
    "the code that decodes": setting(arithmetic, "DECODER", 99),
    "the code that makes chunks": setting(arithmetic, "CHUNKS", 99),
    "Pillow": setting(PIL, "__version__", "99.0"),
    "libjpeg": _pillow("jpg"),
    "libjpeg-turbo": _pillow("libjpeg_turbo"),
    "libwebp": _pillow("webp"),
    "torchvision": _torchvision,
    "torch": setting(torch, "__version__", "2.99.0"),
    "threads": setting(torch, "get_num_threads", lambda: 99),
    "instructions that are used": setting(
        torch.backends.cpu, "get_cpu_capability", lambda: "another"
    ),
    "deterministic algorithms": setting(
        torch, "are_deterministic_algorithms_enabled", lambda: True
    ),
    "precision of matrix products": setting(
        torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision="other")
    ),
    "precision of convolutions": setting(
        torch.backends.mkldnn, "conv", SimpleNamespace(fp32_precision="other")
    ),
    "denormal numbers": _without_denormals,
    "attention's fast path": setting(torch.backends.mha, "get_fastpath_enabled", lambda: False),
    "oneDNN off": flipped(torch.backends.mkldnn, "enabled"),
    "NNPACK off": setting(torch._C, "_get_nnpack_enabled", lambda: False),
    "oneDNN's arithmetic": lambda patch: patch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
    **{f"processor: {key}": _processor(key) for key in arithmetic.processor()},
}
DECODING = ("the code that decodes", "Pillow", "libjpeg", "libjpeg-turbo", "libwebp", "torchvision")
IN_ANY_PRECISION: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    **{name: MACHINE[name] for name in (*DECODING, "the format of the fingerprint", "torch")},
    "the code that compiles hard": setting(arithmetic, "HARDENING", 99),
}
ON_CUDA: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "the GPU": setting(torch.cuda, "get_device_name", lambda _device: "H200"),
    "the GPU's capability": setting(torch.cuda, "get_device_capability", lambda _device: (10, 0)),
    "CUDA": setting(torch.version, "cuda", "99.0"),
    "cuDNN": setting(torch.backends.cudnn, "version", lambda: 99000),
    "cuDNN off": flipped(torch.backends.cudnn, "enabled"),
    "cuDNN deterministic": flipped(torch.backends.cudnn, "deterministic"),
    "cuDNN benchmark": flipped(torch.backends.cudnn, "benchmark"),
    "cuDNN's TF32": flipped(torch.backends.cudnn, "allow_tf32"),
    "TF32 of products": setting(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32="other")),
    "flash attention": setting(torch.backends.cuda, "flash_sdp_enabled", lambda: "other"),
    "efficient attention": setting(
        torch.backends.cuda, "mem_efficient_sdp_enabled", lambda: "other"
    ),
    "cuDNN's attention": setting(torch.backends.cuda, "cudnn_sdp_enabled", lambda: "other"),
}

for _name, _change in MACHINE.items():
    machine_case(_name, _change)
for _name, _change in ON_CUDA.items():
    machine_case(_name, _change, device=torch.device("cuda"))

for _name, _change in IN_ANY_PRECISION.items():
    machine_case(f"{_name}, fp32-fused", _change, precision="fp32-fused")


@case(MISS, "the device, exact")
def _device(_ground: Ground) -> Pair:
    return described(), described(device=torch.device("mps"))


@case(MISS, "the device, fp32-fused")
def _device_fused(_ground: Ground) -> Pair:
    devices = [torch.device("cpu"), torch.device("cuda")]
    one, other = (described(precision="fp32-fused", device=device) for device in devices)
    return one, other


@case(MISS, "the version of a library whose code is used")
def _library(ground: Ground) -> Pair:
    ground.patch.setattr(canonical, "LIBRARIES", canonical.LIBRARIES | {"key_leaf"})
    texts = (f"{LEAF}\n__version__ = '{version}'\n" for version in ("1.0", "1.1"))
    one, other = (sets_of(*with_code(HELPERS, text)) for text in texts)
    return one, other


# ---- What must not matter where only a tolerance is promised


def _fused(change: Callable[[pytest.MonkeyPatch], object], **args: Any) -> Case:
    def run(ground: Ground) -> Pair:
        before = described(precision="fp32-fused")
        change(ground.patch)
        return before, described(precision="fp32-fused", **args)

    return run


HIT["fp32-fused: threads"] = _fused(MACHINE["threads"])
HIT["fp32-fused: another processor"] = _fused(_processor(next(iter(arithmetic.processor()))))
HIT["fp32-fused: a patch release of torch"] = _fused(
    setting(torch, "__version__", ".".join(torch.__version__.split(".")[:2]) + ".99+other")
)
HIT["fp32-fused: the chunk size"] = _fused(lambda _patch: None, chunk_size=7)
HIT["exact on a GPU: threads"] = lambda ground: _on_a_gpu(ground)


def _on_a_gpu(ground: Ground) -> Pair:
    _fake_gpu(ground.patch)
    before = described(device=torch.device("cuda"))
    MACHINE["threads"](ground.patch)
    return before, described(device=torch.device("cuda"))


@case(HIT, "pixels: the mean")
def _pixels(_ground: Ground) -> Pair:
    return pixels(PLAIN), pixels(dataclasses.replace(PLAIN, mean=(0.1, 0.2, 0.3)))


def pixels(preprocessing: Preprocessing) -> Wanted:
    found = fingerprint.describe_pixels(preprocessing)
    assert found is not None
    return Wanted((found,))


for _name in ("resize", "crop", "interpolation", "antialias", "channels"):
    MISS[f"pixels: {_name}"] = lambda _ground, _change=PREPROCESSINGS[_name]: (
        pixels(PLAIN),
        pixels(dataclasses.replace(PLAIN, **_change)),
    )


def _pixel_case(change: Callable[[pytest.MonkeyPatch], object]) -> Case:
    def run(ground: Ground) -> Pair:
        before = pixels(PLAIN)
        change(ground.patch)
        return before, pixels(PLAIN)

    return run


for _name in (*DECODING, "torch", "instructions that are used"):
    MISS[f"pixels: {_name}"] = _pixel_case(MACHINE[_name])
