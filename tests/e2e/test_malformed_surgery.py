"""Malformed surgeries as recipe files, through the command: place, words, a fix, and the fix works."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tlcompile.run.cli import main

DIGITS = "base: {model: digits_net}\n"
RESNET = "base: {model: resnet18}\n"


@dataclass(frozen=True)
class Bad:
    """A recipe that asks for what cannot be, with `@` where the message must point.

    Attributes:
        base: Its first line.
        text: The rest.
        slug: Of the error.
        says: What the message holds.
        mended: The rest after the printed fix; empty: not tried.
    """

    base: str
    text: str
    slug: str
    says: tuple[str, ...]
    mended: str = ""


CASES = {
    "unknown vertex": Bad(
        RESNET,
        "freeze: {upto: @layer5}\n",
        "unknown-vertex",
        ("'layer5'", "did you mean 'layer4'?"),
        "freeze: {upto: layer4}\n",
    ),
    "unknown vertex under remove": Bad(
        RESNET,
        "freeze: none\nremove: {layer4.2: @bypass}\n",
        "unknown-vertex",
        ("'layer4.2'", "did you mean 'layer4.1'?"),
        "freeze: none\nremove: {layer4.1: bypass}\n",
    ),
    "unknown input of an added layer": Bad(
        DIGITS,
        "add: {drop: {layer: dropout, inputs: @flaten, feeds: fc}}\n",
        "unknown-vertex",
        ("'flaten'", "did you mean 'flatten'?"),
        "add: {drop: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "dangling consumer": Bad(
        RESNET,
        "freeze: layer3\nremove: {layer4: @drop}\n",
        "dangling-reader",
        ("'avgpool' still reads it",),
    ),
    "dangling output": Bad(
        DIGITS,
        "remove: {fc: @drop}\n",
        "dangling-reader",
        ("'fc' is removed", "'output' still reads it", "remove: {fc: replace}"),
        "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes}}\n",
    ),
    "input that is removed": Bad(
        RESNET,
        "freeze: layer3\nremove: {fc: replace, layer4: drop}\n"
        "add: {fc: {layer: linear, out: classes, inputs: flat}, "
        "flat: {layer: flatten, inputs: @layer4.1.relu_1}}\n",
        "dangling-reader",
        ("'layer4.1.relu_1' is removed", "'flat' still reads it"),
    ),
    "cycle of added layers": Bad(
        DIGITS,
        "add: {a: @{layer: dropout, inputs: b}, b: {layer: dropout, inputs: a, feeds: fc}}\n",
        "cycle",
        ("a -> b -> a",),
        "add: {a: {layer: dropout, inputs: flatten, feeds: fc}, b: {layer: dropout, inputs: a, feeds: fc}}\n",
    ),
    "cycle through feeds": Bad(
        RESNET,
        "freeze: none\nadd:\n  back: @{layer: average, inputs: [maxpool, layer1], feeds: layer1.0.conv1}\n",
        "cycle",
        ("back -> layer1.0.conv1", "let 'back' feed a vertex that comes behind"),
    ),
    "two layers of one name": Bad(
        DIGITS,
        "add:\n  more: {layer: dropout, inputs: flatten, feeds: fc}\n"
        "  @more: {layer: batch_norm, inputs: flatten}\n",
        "duplicate-key",
        ("'more'", "twice"),
    ),
    "name of a vertex that stays": Bad(
        DIGITS,
        "add: {block2: @{layer: dropout, inputs: block1, feeds: block3}}\n",
        "name-taken",
        ("'block2'", "remove: {block2: replace}"),
        "freeze: block1\nremove: {block2: replace}\n"
        "add: {block2: {layer: conv2d, out: 64, stride: 2, padding: 1, inputs: block1}}\n",
    ),
    "width conflict at an addition": Bad(
        RESNET,
        "freeze: none\nremove: {layer4.1.conv2: replace}\n"
        "add: {layer4.1.conv2: @{layer: conv2d, out: 256, padding: 1}}\n",
        "shape-mismatch",
        ("'layer4.1.bn2' (BatchNorm2d)", "layer4.1.conv2: (N, 256, 7, 7)", "512"),
    ),
    "added sum of two widths": Bad(
        RESNET,
        "freeze: none\nadd: {sum: @{layer: add, inputs: [layer3, layer4], feeds: avgpool}}\n",
        "shape-mismatch",
        ("layer3.1.relu_1: (N, 256, 14, 14)", "layer4.1.relu_1: (N, 512, 7, 7)"),
    ),
    "concat of different sizes": Bad(
        RESNET,
        "freeze: none\nadd: {both: @{layer: concat, inputs: [layer2, layer3], feeds: layer4.0.conv1}}\n",
        "shape-mismatch",
        ("layer2.1.relu_1: (N, 128, 28, 28)", "layer3.1.relu_1: (N, 256, 14, 14)"),
    ),
    "output that nothing computes": Bad(
        DIGITS,
        "outputs: [@logits]\n",
        "unknown-vertex",
        ("'logits'",),
    ),
    "frozen output": Bad(
        DIGITS,
        "freeze: {upto: @fc}\n",
        "frozen-edit",
        ("'fc' is replaced", "freeze up to 'flatten'"),
        "freeze: {upto: flatten}\n",
    ),
    "edit inside a leaf": Bad(
        "base: {model: vit_b_16}\n",
        "freeze: none\nremove:\n"
        "  encoder.layers.encoder_layer_0.self_attention.out_proj: @bypass\n",
        "inside-leaf",
        ("a part of a MultiheadAttention",),
    ),
    "added inside a leaf": Bad(
        RESNET,
        "add: {fc.more: @{layer: dropout, inputs: flatten}}\n",
        "inside-leaf",
        ("'fc.more'", "a part of a Linear"),
    ),
    "edit without effect": Bad(
        DIGITS,
        "add: {drop: @{layer: dropout, inputs: flatten}}\n",
        "no-effect",
        ("no output reads 'drop'", "feeds"),
        "add: {drop: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "removed twice": Bad(
        RESNET,
        "freeze: layer2\nremove:\n  layer4: bypass\n  layer4.1: @bypass\n",
        "no-effect",
        ("removes 'layer4.1.add' already",),
        "freeze: layer2\nremove:\n  layer4: bypass\n",
    ),
    "bypass of an addition": Bad(
        RESNET,
        "freeze: none\nremove: {layer4.1.add: @bypass}\n",
        "cannot-bypass",
        ("layer4.1.bn2", "layer4.0.relu_1"),
    ),
    "bypass that changes a width": Bad(
        RESNET,
        "head: keep\nfreeze: none\nremove: {layer4: @bypass}\n",
        "shape-mismatch",
        ("'fc' (Linear)", "flatten: (N, 256)", "512"),
    ),
    "replace without add": Bad(
        RESNET,
        "remove: {fc: @replace}\n",
        "not-replaced",
        ("'fc' is to be replaced",),
        "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes}}\n",
    ),
    "layer without inputs": Bad(
        DIGITS,
        "add: {drop: @{layer: dropout}}\n",
        "wrong-inputs",
        ("'drop' (dropout) has 0 inputs", "1 input"),
    ),
    "two inputs of a one-input layer": Bad(
        DIGITS,
        "add: {drop: @{layer: dropout, inputs: [block2, block3]}}\n",
        "wrong-inputs",
        ("2 inputs", "1 input"),
    ),
    "one input of an addition": Bad(
        DIGITS,
        "add: {sum: @{layer: add, inputs: block2}}\n",
        "wrong-inputs",
        ("2 inputs or more",),
    ),
    "feeds to a vertex that reads something else": Bad(
        DIGITS,
        "add: {drop: {layer: dropout, inputs: flatten, feeds: @block3.conv}}\n",
        "no-effect",
        ("feeds: block3.conv", "write feeds: fc"),
        "add: {drop: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "feeds to a removed vertex": Bad(
        DIGITS,
        "remove: {fc: replace}\nadd:\n  fc: {layer: linear, out: classes, inputs: flatten}\n"
        "  drop: {layer: dropout, inputs: flatten, feeds: [@fc]}\n",
        "no-effect",
        ("'fc' is removed by this recipe",),
    ),
    "two layers that feed one reader": Bad(
        DIGITS,
        "add:\n  one: {layer: dropout, inputs: flatten, feeds: fc}\n"
        "  two: {layer: dropout, inputs: flatten, feeds: @fc}\n",
        "no-effect",
        ("'two'",),
    ),
    "reserved name": Bad(
        DIGITS,
        "add: {class: @{layer: dropout, inputs: flatten, feeds: fc}}\n",
        "bad-name",
        ("'class'", "a word of Python", "'class_new'"),
        "add: {class_new: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "name of an attribute of nn.Module": Bad(
        RESNET,
        "add: {training: @{layer: dropout, inputs: flatten, feeds: fc}}\n",
        "bad-name",
        ("'training'", "torch.nn.Module"),
        "add: {training_new: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "name of an attribute of the base": Bad(
        RESNET,
        "add: {inplanes: @{layer: dropout, inputs: flatten, feeds: fc}}\n",
        "bad-name",
        ("an attribute of the ResNet",),
        "add: {inplanes_new: {layer: dropout, inputs: flatten, feeds: fc}}\n",
    ),
    "freeze of a removed vertex": Bad(
        RESNET,
        "freeze: {upto: @layer3}\nremove: {layer3: bypass}\n",
        "frozen-edit",
        ("'layer3.1.relu_1' is bypassed", "freeze up to 'layer2.1.relu_1'"),
    ),
    "freeze of an added vertex": Bad(
        DIGITS,
        "freeze: {upto: @drop}\nadd: {drop: {layer: dropout, inputs: flatten, feeds: fc}}\n",
        "no-effect",
        ("'drop' is new",),
    ),
    "freeze inside a leaf": Bad(
        "base: {model: vit_b_16}\n",
        "freeze: {upto: @encoder.layers.encoder_layer_3.self_attention.out_proj}\n",
        "inside-leaf",
        ("write 'encoder.layers.encoder_layer_3.self_attention'",),
        "freeze: {upto: encoder.layers.encoder_layer_3.self_attention}\n",
    ),
    "random and frozen": Bad(
        RESNET,
        "freeze: @layer3\nadd: {norm: {layer: batch_norm, inputs: layer1, feeds: layer2.0}}\n",
        "frozen-edit",
        ("'norm' is added", "freeze up to 'layer1.1.relu_1'"),
        "freeze: layer1.1.relu_1\nadd: {norm: {layer: batch_norm, inputs: layer1, feeds: layer2.0}}\n",
    ),
    "activation on an output": Bad(
        DIGITS,
        "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes, activation: @softmax}}\n",
        "output-activation",
        ("'fc' ends in softmax", "drop `activation` from 'fc'"),
        "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes}}\n",
    ),
    "softmax as the output": Bad(
        DIGITS,
        "add: {p: {layer: activation, name: @softmax, inputs: fc}}\noutputs: [p]\n",
        "output-activation",
        ("'p' ends in softmax", "write outputs: [fc]"),
    ),
    "groups that do not divide": Bad(
        RESNET,
        "freeze: layer3\nremove: {layer4: replace}\nadd: {layer4: @{layer: conv2d, out: 512, groups: 3}}\n",
        "shape-mismatch",
        ("layer3.1.relu_1: (N, 256, 14, 14)", "group"),
    ),
    "kernel larger than the map": Bad(
        DIGITS,
        "freeze: block1\nadd: {wide: @{layer: conv2d, out: 64, kernel: 9, inputs: block2, feeds: block3}}\n",
        "shape-mismatch",
        ("block2.pool: (N, 64, 2, 2)",),
    ),
    "an output size below one": Bad(
        DIGITS,
        "freeze: block1\nadd: {small: @{layer: max_pool, kernel: 4, inputs: block2, feeds: block3}}\n",
        "shape-mismatch",
        ("block2.pool: (N, 64, 2, 2)",),
    ),
    "unknown layer type": Bad(
        DIGITS,
        "add: {more: {layer: @linaer, out: 3, inputs: flatten}}\n",
        "bad-choice",
        ("'linaer'", "did you mean 'linear'?"),
    ),
    "unknown setting": Bad(
        DIGITS,
        "add: {more: {layer: linear, out: 3, @units: 3, inputs: flatten}}\n",
        "unknown-key",
        ("'units'",),
    ),
    "wrong type of a setting": Bad(
        DIGITS,
        "add: {more: {layer: linear, out: @many, inputs: flatten}}\n",
        "bad-value",
        ("add.more.out cannot be many", "a whole number or classes"),
    ),
    "unknown initialiser": Bad(
        DIGITS,
        "add: {more: {layer: linear, out: 3, init: @xavier_unifrom, inputs: flatten, feeds: fc}}\n",
        "bad-choice",
        ("'xavier_unifrom'", "xavier_uniform"),
        "add: {more: {layer: linear, out: 3, init: xavier_uniform, inputs: flatten, feeds: fc}}\n",
    ),
    "resize inside a residual sum": Bad(
        RESNET,
        "freeze: layer3\nresize: {layer4.1.conv2: @{out: 256}}\n",
        "resize-members",
        ("layer4.0.conv2, layer4.0.downsample.0", "(256)", "(512)"),
        "freeze: layer3\n"
        "resize: {layer4.1.conv2: {out: 256}, layer4.0.conv2: {out: 256}, "
        "layer4.0.downsample.0: {out: 256}}\n",
    ),
    "resize of what has no width": Bad(
        RESNET,
        "freeze: layer3\nresize: {layer4.1.relu: @{out: 256}}\n",
        "resize-follower",
        ("'layer4.1.relu'", "resize 'layer4.1.conv1' instead"),
        "freeze: layer3\nresize: {layer4.1.conv1: {out: 256}}\n",
    ),
    "resize of a frozen vertex": Bad(
        RESNET,
        "freeze: @layer3\nresize: {layer2.0.conv1: {out: 64}}\n",
        "frozen-edit",
        ("'layer2.0.conv1' is resized",),
    ),
    "resize and remove": Bad(
        RESNET,
        "freeze: layer3\nremove: {layer4: bypass}\nresize: {layer4.0.conv1: @{out: 256}}\n",
        "no-effect",
        ("'layer4.0.conv1' is bypassed by this recipe",),
        "freeze: layer3\nremove: {layer4: bypass}\n",
    ),
}

CASES |= {
    "no output": Bad(
        DIGITS, "outputs: @[]\n", "no-effect", ("names nothing", "drop the line"), "\n"
    ),
    "an output named twice": Bad(
        DIGITS, "outputs: [flatten, @flatten]\n", "no-effect", ("named twice",)
    ),
    "one added layer inside another": Bad(
        DIGITS,
        "add: {a.b: {layer: dropout, inputs: flatten}, a: @{layer: dropout, inputs: a.b, feeds: fc}}\n",
        "name-taken",
        ("adds both 'a' and 'a.b'", "call it 'a_new'"),
    ),
    "freeze of what head: auto replaces": Bad(
        RESNET,
        "freeze: {only: [layer1, @fc]}\n",
        "no-effect",
        ("'fc' is replaced: head: auto", "drop fc from freeze.only"),
        "freeze: {only: [layer1]}\n",
    ),
}

SEVERAL = """\
base: {model: resnet18}
freeze: {upto: layr1}
remove: {fc: replace, layer9: drop, layer4: drop, layer4.0: bypass}
"""


def write(base: str, text: str) -> str:
    """Write the recipe; return the place that `@` marks."""
    before, _, after = (base + text).partition("@")
    Path("r.yaml").write_text(before + after)
    lines = before.split("\n")
    return f"r.yaml:{len(lines)}:{len(lines[-1]) + 1}:"


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", CASES)
def test_malformed_surgery(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = CASES[name]
    monkeypatch.chdir(tmp_path)
    place = write(bad.base, bad.text)
    code = main(["check", "r.yaml", "--classes", "5"])
    out, said = capsys.readouterr()
    assert said.startswith(f"{place} "), said
    assert f"[{bad.slug}]" in said, said
    assert [word for word in bad.says if word not in squeezed(said)] == [], said
    assert re.search(r"^  fix +\S", said, re.M), said
    assert len(re.findall(r"^r\.yaml:", said, re.M)) == 1, said
    assert (code, out) == (2, "")
    assert "Traceback" not in said
    assert "[unexpected]" not in said


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].mended])
def test_the_printed_fix_mends_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(CASES[name].base, CASES[name].mended)
    code = main(["check", "r.yaml", "--classes", "5"])
    out, said = capsys.readouterr()
    assert (code, said) == (0, ""), said
    assert out.startswith("r.yaml: ok")


def test_several_problems_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(SEVERAL)
    assert main(["check", "r.yaml", "--classes", "5"]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert re.findall(r"^r\.yaml:(\d+:\d+):.*?\[(.*?)\]", said, re.M | re.S) == [
        ("2:16", "unknown-vertex"),
        ("3:14", "not-replaced"),
        ("3:31", "unknown-vertex"),
        ("3:61", "no-effect"),
    ]


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 24
    assert sum(bool(bad.mended) for bad in CASES.values()) >= 10
