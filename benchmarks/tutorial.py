"""The loop of PyTorch's transfer-learning tutorial, as its readers write it: the baseline.

ImageFolder and DataLoader, every image decoded and run through the whole model in every epoch, the
frozen part by `requires_grad = False`, `model.train()` and `model.eval()` for the whole model, the
best weights saved to a file. The transformation is the evaluation's, or the
tutorial's crops and flips.

    python benchmarks/tutorial.py FOLDER WEIGHTS [--model resnet18] [--epochs 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision
from pictures import add_arguments, picture_folder
from safetensors.torch import load_file, save_file
from side import Pause
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

NORMALISE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # of every ResNet of torchvision


@dataclass(frozen=True)
class Settings:
    """What both sides do.

    Attributes:
        folder: train/ and val/ with class folders in each.
        weights: A .safetensors file.
        model: A ResNet of torchvision.
        upto: The last of its stages or blocks that is frozen; layer4: everything but the head.
        epochs: Passes over the training images.
        batch: Images a step.
        optimizer: sgd (momentum 0.9) or adam.
        augment: Whether training images are cropped and flipped at random, as in the tutorial.
        decode: Whether every epoch reads the files; else the images are in memory beforehand.
        workers: Processes that decode; 0: the loop does it itself.
    """

    folder: Path
    weights: Path
    model: str = "resnet18"
    upto: str = "layer4"
    epochs: int = 30
    batch: int = 16
    optimizer: str = "sgd"
    augment: bool = False
    decode: bool = True
    workers: int = 0

    @property
    def rate(self) -> float:
        """Return the tutorial's learning rate, and one tenth of it for Adam."""
        return 1e-3 if self.optimizer == "sgd" else 1e-4


def parser_of(what: str | None, *, images: int) -> argparse.ArgumentParser:
    """Declare what every comparison with this loop takes: a model, and where the pictures come from."""
    parser = argparse.ArgumentParser(
        description=what, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a ResNet of torchvision")
    add_arguments(parser, images)
    return parser


@contextmanager
def settings_of(options: argparse.Namespace, **fixed: Any) -> Iterator[Settings]:
    """Give what options of a setting's name ask for, with pictures and random weights for the time."""
    names = {field.name for field in fields(Settings)} - {"folder", "weights"}
    asked = {name: value for name, value in vars(options).items() if name in names}
    with TemporaryDirectory() as made, picture_folder(options.folder, options.images) as folder:
        weights = Path(made) / "weights.safetensors"
        random_weights(options.model, weights)
        yield Settings(folder, weights, **{**asked, **fixed})


def epochs(pause: Pause, settings: Settings) -> None:
    """Train: the first step builds the model, an epoch is a step."""
    model = build(settings)
    pause()
    with TemporaryDirectory() as folder:
        for _accuracy in epochs_of(settings, model, Path(folder) / "best.pt"):
            pause()


def build(settings: Settings) -> nn.Module:
    """Build the model, freeze it up to a stage, and give it a new head."""
    model: nn.Module = torchvision.models.get_model(settings.model, weights=None)
    model.load_state_dict(load_file(settings.weights))
    for _name, unit in units(model)[: end_of(model, settings.upto)]:
        unit.requires_grad_(False)
    classes = len(datasets.ImageFolder(settings.folder / "train").classes)
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


def units(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what a ResNet does one after the other: its layers block by block."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        blocks = child.named_children() if isinstance(child, nn.Sequential) else ()
        found += [(f"{name}.{number}", block) for number, block in blocks] or [(name, child)]
    return found


def end_of(model: nn.Module, upto: str) -> int:
    """Return how many units a frozen part has; with layer4, the pooling as well."""
    names = [name for name, _unit in units(model)]
    last = max(n for n, name in enumerate(names) if name == upto or name.startswith(f"{upto}."))
    return last + (2 if upto == "layer4" else 1)


def transform(augment: bool) -> transforms.Compose:
    """Return the tutorial's transformation for training, or for evaluation."""
    chosen = (
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
        if augment
        else [transforms.Resize(256), transforms.CenterCrop(224)]
    )
    return transforms.Compose([*chosen, transforms.ToTensor(), NORMALISE])


def loaders(settings: Settings) -> dict[str, DataLoader]:
    """Make the loaders of both splits."""
    found = {}
    for split in ("train", "val"):
        images = datasets.ImageFolder(
            settings.folder / split, transform(settings.augment and split == "train")
        )
        dataset = images if settings.decode else _in_memory(images)
        found[split] = DataLoader(
            dataset, batch_size=settings.batch, shuffle=True, num_workers=settings.workers
        )
    return found


def _in_memory(images: datasets.ImageFolder) -> TensorDataset:
    pixels, labels = zip(*images, strict=True)
    return TensorDataset(torch.stack(pixels), torch.tensor(labels))


def epochs_of(settings: Settings, model: nn.Module, best: Path) -> Iterator[float]:
    """Train, epoch by epoch; yield each epoch's accuracy on val.

    Args:
        settings: What to do.
        model: From `build`; it is changed.
        best: The file of the best epoch's weights.
    """
    data = loaders(settings)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = (
        torch.optim.SGD(trainable, lr=settings.rate, momentum=0.9)
        if settings.optimizer == "sgd"
        else torch.optim.Adam(trainable, lr=settings.rate)
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    highest = -1.0
    for _ in range(settings.epochs):
        for split in ("train", "val"):
            training = split == "train"
            model.train(training)
            correct = 0
            for inputs, labels in data[split]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(training):
                    outputs: Tensor = model(inputs)
                    loss = nn.functional.cross_entropy(outputs, labels)
                    if training:
                        loss.backward()
                        optimizer.step()
                correct += int((outputs.argmax(1) == labels).sum())
            if training:
                scheduler.step()
        accuracy = correct / len(data["val"].dataset)  # type: ignore[arg-type]
        if accuracy > highest:
            highest = accuracy
            torch.save(model.state_dict(), best)
        yield accuracy


def random_weights(model: str, file: Path, seed: int = 0) -> None:
    """Write weights of natural sizes for a model that nobody trained; speed needs no more.

    BatchNorm's statistics are those of a batch of noise: values stay near 1 in every layer.
    """
    torch.manual_seed(seed)
    module: nn.Module = torchvision.models.get_model(model, weights=None)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean of all batches: here, of one
    with torch.no_grad():
        module.train()(torch.randn(8, 3, 224, 224))
    save_file(module.state_dict(), file)


def main() -> None:
    """Train, and print the accuracy of every epoch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--upto", choices=STAGES, default="layer4", help="frozen up to this stage")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4, help="images a step; the tutorial's: 4")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    settings = Settings(**vars(parser.parse_args()))
    with TemporaryDirectory() as folder:
        model = build(settings)
        for number, accuracy in enumerate(epochs_of(settings, model, Path(folder) / "best.pt"), 1):
            print(f"epoch {number}: val {accuracy:.1%}", flush=True)


if __name__ == "__main__":
    main()
