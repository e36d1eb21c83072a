"""What decides the bits beside the model: the precision, and the machine and libraries under it."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import features as pillow

DECODER = 1  # of data/images.py, data/digits.py and zoo/preprocessing.py
CHUNKS = 1  # of features/prefix.py
HARDENING = 1  # of features/hard.py and graph/fold.py
# Each is counted up with any change of that code that may change a bit of what it returns.

_INSTRUCTIONS = ("sse", "avx", "amx", "fma", "f16c", "asimd", "sve", "bf16")
_CPU_FIELDS = ("vendor_id", "cpu family", "model", "model name", "cache size")
# They choose kernels behind torch's back.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def decoder() -> dict[str, Any]:
    """Return what decides the pixels of a file, but for the resizing kernels, which are torch's."""
    return {
        "version": DECODER,
        "pillow": PIL.__version__,
        "jpeg": str(pillow.version("jpg")),
        "libjpeg_turbo": str(pillow.version("libjpeg_turbo")),
        "webp": str(pillow.version("webp")),
        "torchvision": importlib.metadata.version("torchvision").partition("+")[0],
    }


def resizer() -> dict[str, Any]:
    """Return what decides how 8-bit images are resized, to the bit."""
    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}


def arithmetic(precision: str, chunk_size: int, device: torch.device) -> dict[str, Any]:
    """Return what decides the bits of a computation, as far as its precision promises them.

    `exact` promises every bit: batch shape, threads, machine and flags decide some. The others
    promise a tolerance: any machine of one kind, any number of threads.
    """
    if precision != "exact":
        version = ".".join(torch.__version__.split(".")[:2])
        where = {"torch": version, "device": device.type}
        return {"precision": precision, "version": HARDENING, **where}
    return {
        "precision": precision,
        "version": CHUNKS,
        "chunk": chunk_size,
        "torch": torch.__version__,
        "device": _gpu(device) if device.type == "cuda" else _cpu(device),
        "flags": _flags(device),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        # Images are resized on the CPU in any case.
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    cudnn: Any = torch.backends.cudnn
    return {
        "type": device.type,
        "name": torch.cuda.get_device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
    }


def _cpu(device: torch.device) -> dict[str, Any]:
    return {"type": device.type, "threads": torch.get_num_threads(), "processor": processor()}


def _flags(device: torch.device) -> dict[str, Any]:
    """Return the switches of torch that choose kernels on a device."""
    either = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "denormals": bool(torch.tensor([1e-39]).mul(0.5).any()),
        "attention_fast_path": torch.backends.mha.get_fastpath_enabled(),
    }
    if device.type != "cuda":
        mkldnn: Any = torch.backends.mkldnn
        nnpack: bool = torch._C._get_nnpack_enabled()
        return {
            **either,
            "mkldnn": mkldnn.enabled,
            "nnpack": nnpack,
            # Not torch.get_float32_matmul_precision, which raises once anybody has set one of these.
            "conv_precision": mkldnn.conv.fp32_precision,
            "matmul_precision": mkldnn.matmul.fp32_precision,
        }
    cuda: Any = torch.backends.cuda
    return {
        **either,
        "cudnn": torch.backends.cudnn.enabled,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_tf32": cuda.matmul.allow_tf32,
        "flash_attention": cuda.flash_sdp_enabled(),
        "efficient_attention": cuda.mem_efficient_sdp_enabled(),
        "cudnn_attention": cuda.cudnn_sdp_enabled(),
    }


@functools.cache
def processor() -> dict[str, Any]:
    """Return the processor: virtual machines give many models one name, so what it can do, too."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {"name": platform.processor() or platform.machine()}
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    found = {name.replace(" ", "_"): fields[name] for name in _CPU_FIELDS if name in fields}
    return {**found, "instructions": " ".join(f for f in flags if f.startswith(_INSTRUCTIONS))}
