"""Write a commented recipe from a base model and a data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from tlcompile.data.folder import scan_folder
from tlcompile.durable.files import write_file
from tlcompile.errors.finding import FileExistsAlreadyError
from tlcompile.errors.weights import UnknownModelError
from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.say import say
from tlcompile.zoo.open import all_model_names

TEMPLATE = """\
# yaml-language-server: $schema=recipe.schema.json
# (editors complete keys after: tlcompile schema > recipe.schema.json)
# {images}
#   tlcompile check {out}
#   tlcompile train {out}
#   tlcompile train {out} -m freeze.upto=stage2,stage3,head    # a sweep over freeze points
base:
  model: {model}          # tlcompile zoo lists them; tlcompile zoo {model} lists its vertices
  weights: default        # a name of the zoo, a .safetensors or .pth file, or none
freeze: head              # all but the classifier; or a vertex (inclusive), stage1..stage4, none
# The classifier is replaced by one with as many outputs as there are classes (head: auto).
data:
  {folder}
  # split: {{val: 0.2, seed: 0}}                    # used where there is no val/ folder
  # augment: {{train: [horizontal_flip]}}           # with features: {{views: 2}} or {{cache: off}}
fine_tune:
  seed: 42
  optimizer: {{name: adamw, lr: 1e-3}}   # 1e-4 where pretrained layers train too
  epochs: 10
  batch_size: 32
  # phases:                                       # instead of epochs: thaw step by step
  #   - {{name: head, epochs: 5}}
  #   - {{name: all, freeze: none, epochs: 5, lr: 1e-4}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--base", required=True, metavar="MODEL", help="a base model of the zoo")
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="class folders, or train/ and val/"
    )
    parser.add_argument("--out", default="recipe.yaml", metavar="FILE", help="default: recipe.yaml")


def run(options: argparse.Namespace) -> int:
    """Write the file; an existing one is never overwritten."""
    names = all_model_names()
    if options.base not in names:
        raise UnknownModelError(name=options.base, models=tuple(names))
    splits = scan_folder(options.data)
    train = splits.get("all") or splits["train"]
    images = (
        f"{len(train)} training images of {len(train.classes)} classes: {', '.join(train.classes)}"
    )
    out = Path(options.out)
    if out.exists():
        raise FileExistsAlreadyError(path=str(out))
    folder = to_yaml({"folder": options.data}).strip()
    text = TEMPLATE.format(images=images[:200], out=out, model=options.base, folder=folder)
    write_file(out, text.encode())
    say(f"wrote {out}: {images}")
    say(f"next        tlcompile check {out}")
    return 0
