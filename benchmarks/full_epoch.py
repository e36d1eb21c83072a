"""An epoch of full fine-tuning: a hand-tuned plain loop against tlcompile (P10).

    python benchmarks/full_epoch.py
    python benchmarks/full_epoch.py --model resnet50 --images 96 --batch 16
    python benchmarks/full_epoch.py --precision bf16        # autocast and channels-last on both sides

Nothing is frozen, nothing is augmented, and no side decodes: the plain loop has prepared 8-bit images
in memory and the same kernels, the same C library's settings and the same optimizer; ours reads what
its store has. Each side runs in a process of its own, an epoch each in turn; the first is left out.
An epoch is a pass over train with its steps and one over val. The bar is throughput, so the ratio is
that of the times.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace

import cached
import torch
import tutorial
from side import Pause, Side, Spent, median
from table import Row, show_table
from torch import Tensor, nn
from torchvision import datasets
from tutorial import Settings

from tlcompile.recipe.load import complete
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.train import train_recipe
from tlcompile.training.optim import has_fused

MEAN, STD = (
    torch.tensor(v).view(3, 1, 1) * 255 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def plain(pause: Pause, settings: Settings, precision: str, device: str) -> None:
    """Train in a plain loop that is as fast as torch lets it be."""
    keep_freed_memory()
    format_ = torch.contiguous_format if precision == "fp32" else torch.channels_last
    model = tutorial.build(replace(settings, upto="conv1")).to(device, memory_format=format_)
    model.requires_grad_(True)
    images = {split: _pixels(settings, split) for split in ("train", "val")}
    fused = {"fused": True} if has_fused(torch.device(device)) else {}
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate, **fused)
    pause()
    for _ in range(settings.epochs):
        for split, (pixels, labels) in images.items():
            _epoch(
                model,
                pixels,
                labels,
                settings,
                precision,
                device,
                optimizer if split == "train" else None,
            )
        pause()


def _pixels(settings: Settings, split: str) -> tuple[Tensor, Tensor]:
    chosen = tutorial.transforms
    prepare = chosen.Compose([chosen.Resize(256), chosen.CenterCrop(224), chosen.PILToTensor()])
    pairs = datasets.ImageFolder(settings.folder / split, prepare)
    pixels, labels = zip(*pairs, strict=True)
    return torch.stack(pixels), torch.tensor(labels)


def _epoch(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    settings: Settings,
    precision: str,
    device: str,
    optimizer: torch.optim.Optimizer | None,
) -> float:
    model.train(optimizer is not None)
    order = torch.randperm(len(labels)) if optimizer else torch.arange(len(labels))
    total = torch.zeros((), device=device)
    mean, std = MEAN.to(device), STD.to(device)
    for batch in order.split(settings.batch):
        inputs = (pixels[batch].to(device, non_blocking=True).float() - mean) / std
        if precision != "fp32":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        target = labels[batch].to(device, non_blocking=True)
        half = torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()
        with half, torch.set_grad_enabled(optimizer is not None):
            loss = nn.functional.cross_entropy(model(inputs), target)
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        total += loss.detach() * len(batch)
    return float(total)


def ours(pause: Pause, settings: Settings, precision: str, device: str) -> None:
    """Train the same recipe; an epoch is a step, and decoding belongs to the first."""
    with cached.cold_cache() as folder:
        recipe = cached.recipe_of(settings)
        recipe = recipe.model_copy(
            update={
                "freeze": recipe.freeze.model_copy(update={"upto": ("none",)}),
                "run": recipe.run.model_copy(update={"precision": precision, "device": device}),
            }
        )
        train_recipe(complete(recipe), folder / "run", on_epoch=lambda _row, _best: pause())


def compare(settings: Settings, precision: str, device: str) -> Row:
    """Run both sides, an epoch each in turn."""
    sides = {
        "plain": Side(plain, settings, precision, device),
        "ours": Side(ours, settings, precision, device),
    }
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    with ExitStack() as stack:
        running = {name: stack.enter_context(side) for name, side in sides.items()}
        running["plain"].step()  # the model is built, the images are in memory
        for _ in range(settings.epochs):
            for name, side in running.items():
                found[name].append(side.step())
    work = f"epoch, all of {settings.model}, batch {settings.batch}, {precision}, {device}"
    return Row("P10", work, median(found["plain"][1:]), median(found["ours"][1:]), ">= 0.98", 1.0)


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=64)
    parser.add_argument("--epochs", type=int, default=5, help="of each side; the first is left out")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tutorial.settings_of(options, upto="conv1", optimizer="adam") as settings:
        show_table([compare(settings, options.precision, options.device)])
    print(f"medians of {options.epochs - 1} epochs in turn")


if __name__ == "__main__":
    main()
