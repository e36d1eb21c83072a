"""torchvision's models: built as the named weights would build them, loaded or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock
from urllib.error import URLError

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from tlcompile.errors.weights import NoDownloadError, UnknownWeightsError
from tlcompile.zoo.base import IMAGENET_MEAN, IMAGENET_STD, BaseModel
from tlcompile.zoo.building import BUILDING, load_exactly, without_init
from tlcompile.zoo.detection import Detector
from tlcompile.zoo.files import is_file, read_tensors
from tlcompile.zoo.preprocessing import Preprocessing, from_weights

LICENCE = "torchvision: BSD-3-Clause code; weights under the terms of their data set"


# Frames of one clip: the clip_len that the documentation of the weights states; the rest take 16.
CLIP_FRAMES = {"s3d": 128, "swin3d_b": 32, "swin3d_s": 32, "swin3d_t": 32}
DEFAULT_FRAMES = 16

SEGMENTATION = tuple(list_models(torchvision.models.segmentation))
VIDEO = tuple(list_models(torchvision.models.video))
DETECTION = tuple(list_models(torchvision.models.detection))


def model_names() -> list[str]:
    """Return the models for classification, segmentation, video and detection."""
    return [*list_models(torchvision.models), *SEGMENTATION, *VIDEO, *DETECTION]


def open_torchvision(name: str, weights: str, size: int | None, *, load: bool) -> BaseModel:
    """Build a model as its weights would, and load them if asked.

    The structure follows the weights' name, not their presence: googlenet's auxiliary heads, ViT's
    image size, the second head of fcn_resnet50. So the builder itself runs, with the download
    replaced by nothing, by a file's tensors, or by the real download.

    Args:
        name: Of `model_names()`.
        weights: `default`, a name, a path, or `none`.
        size: Image side, pixels; None: the weights' own.
        load: Whether real tensors are wanted.

    Raises:
        UnknownWeightsError: The model has no such weights.
        WeightsFileError: The file cannot be read.
        WeightsMismatchError: The file's tensors are another model's.
        NoDownloadError: The download failed.
    """
    entry = _entry(name, weights)
    if weights == "none":
        module = _without_weights(name, load)
    elif not load:
        with without_init(), _state(entry, name, None, weights):
            module = get_model(name, weights=entry)
    elif is_file(weights):
        with without_init(), _state(entry, name, read_tensors(weights), weights):
            module = get_model(name, weights=entry)
    else:
        module = _download(name, entry)
    if name in DETECTION:
        transform: Any = module.get_submodule("transform")
        side = transform.min_size[-1]
        native, preprocessing = _whole_image(side), _whole_image(size or side)
        module = Detector(module)
    else:
        native, preprocessing = from_weights(entry), _preprocessing(entry, size)
    return BaseModel(
        name=name,
        module=module,
        sample_shape=_sample_shape(name, preprocessing),
        native_shape=_sample_shape(name, native),
        preprocessing=preprocessing,
        weights=weights if weights == "none" or is_file(weights) else str(entry),
        loaded=load and weights != "none",
        licence=LICENCE,
        categories=tuple(entry.meta.get("categories") or ()) if weights != "none" else (),
    )


def _entry(name: str, weights: str) -> Any:
    """Return the weights' enum member; a file has the structure of the default weights."""
    known = get_model_weights(name)
    if weights in ("default", "none") or is_file(weights):
        return known.DEFAULT
    if weights not in known.__members__:
        raise UnknownWeightsError(model=name, name=weights, weights=tuple(known.__members__))
    return known[weights]


def _whole_image(side: int) -> Preprocessing:
    """Return what a detector reads: colours in [0, 1], which it normalises itself."""
    return Preprocessing((side, side), None, (0.0,) * 3, (1.0,) * 3, "bilinear", 3)


def _sample_shape(name: str, preprocessing: Preprocessing) -> tuple[int, ...]:
    side = preprocessing.size or 224
    frames = (CLIP_FRAMES.get(name, DEFAULT_FRAMES),) if name in VIDEO else ()
    return (3, *frames, side, side)


def _without_weights(name: str, load: bool) -> nn.Module:
    kwargs: dict[str, Any] = {"weights": None}
    if name in SEGMENTATION or name in DETECTION:
        kwargs["weights_backbone"] = None  # else a backbone is downloaded all the same
    if name in ("googlenet", "inception_v3"):
        kwargs["init_weights"] = load
    with contextlib.nullcontext() if load else without_init():
        module: nn.Module = get_model(name, **kwargs)
    return module


@contextlib.contextmanager
def _state(
    entry: Any, model: str, tensors: dict[str, torch.Tensor] | None, source: str
) -> Iterator[None]:
    """Give the builder these tensors where it would download; none: it loads nothing."""

    def load(module: nn.Module, state: dict[str, torch.Tensor], *_args: Any, **_kw: Any) -> None:
        if tensors is not None:
            load_exactly(module, state, source=source, model=model)

    with (
        BUILDING,
        mock.patch.object(type(entry), "get_state_dict", return_value=dict(tensors or {})),
        mock.patch.object(nn.Module, "load_state_dict", load),
    ):
        yield


def _download(name: str, entry: Any) -> nn.Module:
    try:
        with without_init():
            module: nn.Module = get_model(name, weights=entry, progress=False)
    except (URLError, OSError, RuntimeError) as cause:
        raise NoDownloadError(
            model=name, weights=str(entry), url=entry.url, reason=str(cause).splitlines()[0]
        ) from cause
    return module


def _preprocessing(entry: Any, size: int | None) -> Preprocessing:
    if size is None:
        return from_weights(entry)
    # The references crop 7/8 of the resized side.
    return Preprocessing(round(size * 8 / 7), size, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 3)
