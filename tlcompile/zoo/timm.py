"""timm's models, where timm is installed: `timm/<name>`, built as the named weights would build them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from urllib.error import URLError

import torch
from torch import nn

from tlcompile.errors.data import UnsupportedPreprocessingError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.weights import (
    NoDownloadError,
    NotInstalledError,
    UnknownModelError,
    UnknownWeightsError,
    WeightsMismatchError,
)
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.building import BUILDING, load_exactly
from tlcompile.zoo.files import is_file, read_tensors
from tlcompile.zoo.preprocessing import Preprocessing

PREFIX = "timm/"


def timm_names() -> list[str]:
    """Return timm's models as `base.model` takes them; none where timm is not installed."""
    if importlib.util.find_spec("timm") is None:
        return []
    import timm

    return [f"{PREFIX}{name}" for name in timm.list_models()]


def open_timm(name: str, weights: str, size: int | None, *, load: bool) -> BaseModel:
    """Build one of timm's models as its weights would, and load them if asked.

    Without real tensors wanted, it is built on the meta device, where nothing is computed.

    Args:
        name: `timm/<name>`.
        weights: `default`, a tag of timm's, a path, or `none`.
        size: Image side, pixels; None: the weights' own.
        load: Whether real tensors are wanted.

    Raises:
        NotInstalledError: timm is not.
        UnknownModelError: timm has no such model.
        UnknownWeightsError: The model has no such weights.
        NoEffectError: A size, and it takes images of its own size alone.
        WeightsError: The weights cannot be had, or are another model's.
    """
    if importlib.util.find_spec("timm") is None:
        raise NotInstalledError(what=f"'{name}'", extra="timm", key=("base", "model"))
    short = name.removeprefix(PREFIX)
    config = _config(name, short, weights)
    channels, *sides = config.input_size
    wanted = (channels, size, size) if size else (channels, *sides)
    module = _build(name, config, weights, wanted, load)
    return BaseModel(
        name=name,
        module=module,
        sample_shape=wanted,
        # A size that is built in is the only one that the module can run at.
        native_shape=wanted if config.fixed_input_size else (channels, *sides),
        preprocessing=_preprocessing(name, config, wanted),
        weights=weights if weights == "none" or is_file(weights) else config.tag or "none",
        loaded=load and weights != "none",
        licence=f"timm: {config.license or 'not stated'}",
    )


def _config(name: str, short: str, weights: str) -> Any:
    """Return timm's description of the weights; a file has the structure of the default ones."""
    import timm

    if not timm.is_model(short) or "." in short:
        raise UnknownModelError(name=name, models=tuple(timm_names()), key=("base", "model"))
    tags = tuple(
        known.partition(".")[2] for known in timm.list_pretrained(f"{short}.*") if "." in known
    )
    if weights in ("default", "none") or is_file(weights):
        return timm.get_pretrained_cfg(short)
    if weights not in tags:
        raise UnknownWeightsError(model=name, name=weights, weights=tags)
    return timm.get_pretrained_cfg(f"{short}.{weights}")


def _build(name: str, config: Any, weights: str, shape: tuple[int, ...], load: bool) -> nn.Module:
    """Let timm build the module, with real tensors only where they are wanted."""
    kwargs: dict[str, Any] = {"pretrained_cfg": config}
    if config.fixed_input_size and shape != tuple(config.input_size):
        kwargs["img_size"] = shape[-1]  # timm fits the table of positions to it on loading
    short = name.removeprefix(PREFIX)
    if not load:
        with torch.device("meta"):
            return _create(name, short, kwargs)
    if weights == "none":
        return _create(name, short, kwargs)
    if is_file(weights):
        tensors = read_tensors(weights)
        kwargs["pretrained_cfg_overlay"] = {"state_dict": tensors}
        with _exactly(source=weights, model=name):
            return _loaded_from_file(name, short, weights, kwargs)
    try:
        return _create(name, short, {**kwargs, "pretrained": True})
    except (URLError, OSError, RuntimeError) as cause:
        url = str(config.hf_hub_id or config.url or "no address")
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise NoDownloadError(
            model=name, weights=str(config.tag), url=url, reason=reason
        ) from cause


def _create(name: str, short: str, kwargs: dict[str, Any]) -> nn.Module:
    import timm

    try:
        module: nn.Module = timm.create_model(short, **kwargs)
    except TypeError as cause:
        if "img_size" not in kwargs:
            raise
        raise NoEffectError(
            line="base.size",
            because=f"'{name}' takes images of its own size alone",
            instead="drop base.size",
            key=("base", "size"),
        ) from cause
    return module


def _loaded_from_file(name: str, short: str, path: str, kwargs: dict[str, Any]) -> nn.Module:
    try:
        return _create(name, short, {**kwargs, "pretrained": True})
    except (KeyError, RuntimeError, AttributeError, IndexError, ValueError) as cause:
        # timm renames tensors of older files first, which fails in its own ways on alien ones.
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise WeightsMismatchError(
            source=path, model=name, missing=(), unexpected=(), shapes=(reason,)
        ) from cause


@contextmanager
def _exactly(*, source: str, model: str) -> Iterator[None]:
    """Let timm load every tensor, or say which ones do not fit."""

    def load(module: nn.Module, state: dict[str, torch.Tensor], *_args: Any, **_kw: Any) -> Any:
        load_exactly(module, state, source=source, model=model)
        return mock.Mock(missing_keys=[], unexpected_keys=[])

    with BUILDING, mock.patch.object(nn.Module, "load_state_dict", load):
        yield


def _preprocessing(name: str, config: Any, shape: tuple[int, ...]) -> Preprocessing:
    """Translate timm's evaluation transform.

    Raises:
        UnsupportedPreprocessingError: It pads images to the aspect of its input.

    Source:
        timm/data/transforms_factory.py, transforms_imagenet_eval, version 1.0.
    """
    channels, height, width = shape
    scaled = (math.floor(height / config.crop_pct), math.floor(width / config.crop_pct))
    resize: int | tuple[int, int] | None
    if config.crop_mode == "squash":
        resize, crop = scaled, None if scaled == (height, width) else height
    elif config.crop_mode == "center" and height == width:
        resize, crop = scaled[0], height
    else:
        preset = f"{height}x{width}, crop_mode {config.crop_mode}"
        raise UnsupportedPreprocessingError(weights=f"{name} {config.tag}", preset=preset)
    return Preprocessing(
        resize=resize,
        crop=crop,
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        channels=channels,
    )
