from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import (
    EfficientNet_B1_Weights,
    MobileNet_V3_Small_Weights,
    ResNet18_Weights,
    get_model_weights,
    list_models,
)
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.optical_flow import Raft_Small_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights
from torchvision.models.video import MViT_V1_B_Weights, R3D_18_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812, torchvision's own name

from tlcompile.errors.data import UnsupportedPreprocessingError
from tlcompile.zoo.preprocessing import Preprocessing, from_weights

PLAIN = Preprocessing(None, None, (0.0,), (1.0,), "bilinear", 1)


def photo(height: int, width: int) -> np.ndarray:
    """Smooth waves with a little noise, as in photographs."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((30, 50), (17, 90), (60, 25))]
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


@pytest.mark.parametrize(
    "weights",
    [
        ResNet18_Weights.IMAGENET1K_V1,
        EfficientNet_B1_Weights.IMAGENET1K_V1,  # bicubic
        MobileNet_V3_Small_Weights.IMAGENET1K_V1,
        FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,  # no crop
    ],
    ids=str,
)
@pytest.mark.parametrize(("height", "width"), [(300, 417), (511, 380)])
def test_apply_agrees_with_torchvision_on_a_pil_image(
    weights: object, height: int, width: int
) -> None:
    """Not equal: Pillow's resize and torch's round a few pixels to the other of two levels."""
    array = photo(height, width)
    ours = from_weights(weights).apply(tensor(array))
    theirs = weights.transforms()(Image.fromarray(array))  # type: ignore[attr-defined]
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().mean() < 2e-4
    assert (ours - theirs).abs().max() < 1.01 / 255 / 0.224


@pytest.mark.parametrize(
    "weights", [R3D_18_Weights.KINETICS400_V1, MViT_V1_B_Weights.KINETICS400_V1]
)
def test_frames_agree_with_torchvisions_clip(weights: object) -> None:
    """Within one level of 255: torchvision's presets resize tensors as floats, v2 as 8 bits."""
    frames = torch.stack([tensor(photo(240, 320)), tensor(photo(240, 320)).flip(-1)])
    theirs = weights.transforms()(frames)  # type: ignore[attr-defined]
    ours = from_weights(weights).apply(frames).permute(1, 0, 2, 3)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1.01 / 255 / 0.2169


def every_preprocessing() -> list[Preprocessing]:
    """All that torchvision's weights want, each once."""
    found: set[Preprocessing] = set()
    for name in list_models():
        for weights in get_model_weights(name):
            with contextlib.suppress(UnsupportedPreprocessingError):
                found.add(from_weights(weights))
    return sorted(found, key=str)


def test_there_are_many_kinds_of_preprocessing() -> None:
    kinds = every_preprocessing()
    assert len(kinds) > 20
    assert {p.interpolation for p in kinds} == {"bilinear", "bicubic"}
    assert None in {p.crop for p in kinds}


@pytest.mark.parametrize("preprocessing", every_preprocessing(), ids=str)
def test_pixels_then_normalise_is_apply_to_the_bit(preprocessing: Preprocessing) -> None:
    """The reference is written with torchvision's own functions, step by step."""
    image = tensor(photo(300, 417))
    resize, crop = preprocessing.resize, preprocessing.crop
    size = [resize] if isinstance(resize, int) else list(resize or ())
    mode = InterpolationMode(preprocessing.interpolation)
    resized = F.resize(image, size, interpolation=mode, antialias=preprocessing.antialias)
    wanted = F.center_crop(resized, [crop, crop]) if crop else resized
    pixels = preprocessing.pixels(image)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, wanted)
    mean, std = list(preprocessing.mean), list(preprocessing.std)
    normalised = F.normalize(wanted.float() / 255, mean, std)
    assert torch.equal(preprocessing.normalise(pixels), normalised)
    assert torch.equal(preprocessing.apply(image), normalised)
    assert preprocessing.apply(image).is_contiguous()
    stack = torch.stack([pixels, pixels.flip(-1)]).contiguous(memory_format=torch.channels_last)
    assert torch.equal(preprocessing.normalise(stack)[0], normalised)


def test_normalising_leaves_its_input_as_it_was() -> None:
    image = torch.rand(3, 4, 4)
    before = image.clone()
    from_weights(ResNet18_Weights.IMAGENET1K_V1).normalise(image)
    assert torch.equal(image, before)


def test_from_weights_reads_the_preset() -> None:
    assert from_weights(ResNet18_Weights.IMAGENET1K_V1) == Preprocessing(
        resize=256,
        crop=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bilinear",
        channels=3,
        antialias=True,
    )
    assert from_weights(EfficientNet_B1_Weights.IMAGENET1K_V1).interpolation == "bicubic"
    assert from_weights(R3D_18_Weights.KINETICS400_V1).resize == (128, 171)
    assert from_weights(R3D_18_Weights.KINETICS400_V1).antialias is False


@pytest.mark.parametrize(
    "weights", [FasterRCNN_ResNet50_FPN_Weights.DEFAULT, Raft_Small_Weights.DEFAULT]
)
def test_other_presets_are_refused(weights: object) -> None:
    with pytest.raises(UnsupportedPreprocessingError):
        from_weights(weights)


def test_size() -> None:
    assert from_weights(ResNet18_Weights.IMAGENET1K_V1).size == 224
    assert from_weights(FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1).size == 520
    assert Preprocessing((128, 171), None, (0.0,), (1.0,), "bilinear", 1).size == 128
    assert PLAIN.size is None


def test_without_resize_and_crop_only_the_scale_changes() -> None:
    image = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    assert torch.equal(PLAIN.apply(image), image.float() / 255)


def test_normalise_is_the_last_step_alone() -> None:
    resnet = from_weights(ResNet18_Weights.IMAGENET1K_V1)
    image = tensor(photo(224, 224))
    cropped = Preprocessing(None, 224, resnet.mean, resnet.std, "bilinear", 3)
    assert torch.equal(resnet.normalise(image), cropped.apply(image))


def test_grey_and_rgb_are_converted_by_channels() -> None:
    grey = torch.tensor([[[10, 20]]], dtype=torch.uint8)
    rgb = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3, "bilinear", 3)
    assert torch.equal(rgb.apply(grey), (grey.float() / 255).expand(3, -1, -1))
    red = torch.tensor([[[255]], [[0]], [[0]]], dtype=torch.uint8)
    assert torch.equal(PLAIN.apply(red), torch.tensor([[[76]]]) / 255)


@pytest.mark.parametrize(
    "preprocessing",
    [from_weights(ResNet18_Weights.IMAGENET1K_V1), from_weights(R3D_18_Weights.DEFAULT), PLAIN],
)
def test_dict_round_trip_through_json(preprocessing: Preprocessing) -> None:
    written = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(written) == preprocessing
