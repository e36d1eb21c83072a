from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.tiny import Branches, Chain, Residual, graph_with_shapes, recipe_of, shake
from parity.plain import plain_model
from torch import Tensor, nn

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from passes.shared_modules import Tied, Twice
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.resize import ResizeMembersError
from tlcompile.graph.resize_lines import Line
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.resize_vertex import ResizeVertex

SMALL = "base: {model: own, size: 16}\nfreeze: none\n"
LINES = {"chain": ("conv", 5), "residual": ("layer1.0.conv1", 5), "branches": ("left", 7)}


def resize(vertex: str, **line: Any) -> ResizeVertex:
    return ResizeVertex(lines=((vertex, Line(**line)),), seed=0)


@pytest.mark.parametrize("tiny", LINES)
def test_golden(tiny: str, update_goldens: bool) -> None:
    vertex, out = LINES[tiny]
    check_golden(tiny, resize(vertex, out=out), update_goldens)


def test_the_promises_can_fail() -> None:
    one = resize("conv", out=5)
    check_promise_can_fail(one, tiny_after("chain"), "'conv' is 5 wide")
    damaged = tiny_after("chain", one)
    damaged.module.fc.in_features = 32  # type: ignore[union-attr, assignment]
    check_promise_can_fail(one, damaged, "'fc' reads the 20 channels")


def compiled(
    text: str, base: nn.Module, *, top: str = SMALL, num_classes: int | None = 5
) -> CompiledModel:
    return compile_recipe(recipe_of(top + text), base=base, num_classes=num_classes)


X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# What is refused: slug, recipe with `@` at the place, words


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x.flatten(2).transpose(1, 2))
        return self.fc(self.attention(x, x, x)[0].mean(1))


class Grouped(nn.Module):
    """A convolution, a grouped one, a depthwise one, a group norm, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.norm = nn.GroupNorm(4, 24)
        self.prelu = nn.PReLU(24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.prelu(self.norm(self.depthwise(self.grouped(self.stem(x)))))
        return self.head(x).mean((2, 3))


class Written(nn.Module):
    """Its forward has widths written into it, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.how = how
        self.fc = nn.LazyLinear(4)
        self.eval()(torch.zeros(2, 3, 16, 16))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        match self.how:
            case "reshape":
                x = x.reshape(x.size(0), 8, -1)
            case "slice":
                x = x[:, :4] * x[:, 4:]
            case "split":
                x = torch.split(x, 4, 1)[0]
            case "layer_norm":
                x = nn.functional.layer_norm(x.movedim(1, 3), (8,))
        return self.fc(x.flatten(2).mean(2) if self.how != "reshape" else x.mean(2))


REFUSALS: list[tuple[str, Callable[[], nn.Module], str, list[str]]] = [
    ("resize-follower", Chain, "resize: {bn: @{out: 4}}", ["'conv' decides", "resize 'conv' instead"]),
    ("resize-follower", Chain, "resize: {flatten: @{out: 4}}", ["resize 'conv' instead"]),
    ("resize-follower", Grouped, "resize: {depthwise: @{out: 8}}", ["'grouped' decides"]),
    ("resize-follower", Attention, "resize: {attention: @{out: 8}}", ["nothing that can be resized"]),
    ("resize-follower", Chain, "resize: {x: @{out: 4}}", ["'x' (input)"]),
    ("unknown-vertex", Chain, "resize: {konv: @{out: 4}}", ["'conv'"]),
    ("inside-leaf", Attention, "resize: {attention.out_proj: @{out: 4}}", ["'attention'"]),
    ("no-effect", Chain, "resize: {conv: {out: @8}}", ["'conv' is 8 wide already"]),
    ("no-effect", Chain, "resize: {fc: {out: 3, in: @32}}", ["reads 32 already"]),
    ("no-effect", Chain, "resize: {conv: {out: 4}, fc: {in: @16}}", ["it is inferred"]),
    ("no-effect", Chain, "resize: {conv: {out: 4}, fc: {in: @16, out: 2, init: ones}}", ["inferred"]),
    ("no-effect", Chain, "resize: {fc: {out: 4, fan_out_init: @zeros}}", ["no reader of 'fc'"]),
    ("no-effect", Chain, "head: auto\nresize: {fc: @{out: 3}}", ["head: auto replaces"]),
    (
        "no-effect",
        Chain,
        "remove: {conv: replace}\nadd: {conv: {layer: conv2d, out: 8}}\nresize: {conv: @{out: 4}}",
        ["'conv' is replaced"],
    ),
    ("no-effect", Residual, "remove: {layer1: bypass}\nresize: {layer1.0.conv1: @{out: 4}}", ["bypassed"]),
    ("no-effect", Chain, "outputs: bn\nresize: {fc: @{out: 4}}", ["no output reads 'fc'"]),
    ("resize-input", Chain, "resize: {fc: {in: @31}}", ["is to read 31", "drop: (N, 32)"]),
    ("resize-input", Chain, "resize: {conv: {out: 4}, fc: {in: @32, init: ones}}", ["gets 16"]),
    ("shape-mismatch", Residual, ("head: keep\nremove: {down: replace}\n"
     "add: {down: {layer: conv2d, out: 9}}\nresize: {fc: @{in: 10}}"), ["flatten: (N, 9)"]),
    ("not-divisible", Grouped, "resize: {stem: @{out: 10}}", ["4 groups", "8 or 12"]),
    ("not-divisible", Grouped, "resize: {grouped: @{out: 10}}", ["4 groups", "8 or 12"]),
    ("no-width-rule", Attention, "resize: {embed: @{out: 4}}", ["MultiheadAttention", "(N, 256, 4)"]),
    ("written-width", lambda: Written("reshape"), "resize: {stem: @{out: 4}}", ["(N, 4,", "(N, 8,"]),
    ("written-width", lambda: Written("reshape"), "resize: {stem: @{out: 16}}", ["another dimension"]),
    ("written-width", lambda: Written("slice"), "resize: {stem: @{out: 16}}", ["by their number"]),
    ("written-width", lambda: Written("split"), "resize: {stem: @{out: 16}}", ["number of tensors"]),
    ("written-width", lambda: Written("layer_norm"), "resize: {stem: @{out: 16}}", ["(N, 4, 4, 16)"]),
    (
        "resize-clash",
        Residual,
        "resize: {stem: {out: 4}, layer1.0.conv2: @{out: 6}}",
        ["layer1.0.add", "layer1.0.conv2: 6", "stem: 4"],
    ),
    (
        "resize-disagree",
        Branches,
        "head: keep\nresize: {left: @{out: 3, init: zeros}, right: {out: 4, init: ones}}",
        ["left: zeros", "right: ones"],
    ),
    (
        "resize-disagree",
        Branches,
        "head: keep\nresize: {left: @{out: 3, overlap: true}, right: {out: 4}}",
        ["left: True", "right: False"],
    ),
    (
        "init-refused",
        Chain,
        "resize: {conv: @{out: 3, init: eye}}",
        ["eye"],
    ),
    ("bad-rule", Chain, "resize: {conv: @{init: zeros}}", ["out or in"]),
    ("bad-rule", Chain, "resize: {fc: @{in: 3, fan_out_init: zeros}}", ["no reader changes"]),
]  # fmt: skip


@pytest.mark.parametrize(("slug", "base", "text", "words"), REFUSALS)
def test_refusal(slug: str, base: Callable[[], nn.Module], text: str, words: list[str]) -> None:
    before = (SMALL + text[: text.index("@")]).splitlines()
    place = f"tiny.yaml:{len(before)}:{len(before[-1]) + 1}"
    with pytest.raises(TLCompileError) as caught:
        compiled(text.replace("@", ""), base())
    message = str(caught.value)
    assert (caught.value.slug, str(caught.value.where)) == (slug, place), message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("freeze", "text", "words"),
    [  # T6
        ("layer1.0", "resize: {layer1.0.conv1: {out: 4}}", ["'layer1.0.conv1' is resized", "'stem'"]),
        ("layer1.0.conv1", "resize: {stem: {out: 4}, layer1.0.conv2: {out: 4}, layer1.1.conv2: {out: 4}}",
         ["'stem' is resized", "freeze: none"]),
        ("layer1.0", "resize: {layer1.0.conv2: {out: 4}, stem: {out: 4}, layer1.1.conv2: {out: 4}}",
         ["'stem' is resized"]),
        ("layer1.0.conv1", "resize: {layer1.0.conv1: {out: 4, overlap: true}}", ["is resized"]),
    ],
)  # fmt: skip
def test_a_resize_in_the_frozen_part_is_refused(freeze: str, text: str, words: list[str]) -> None:
    top = f"base: {{model: own, size: 16}}\nfreeze: {freeze}\n"
    with pytest.raises(TLCompileError) as caught:
        compiled(text, Residual(), top=top)
    message = str(caught.value)
    assert caught.value.slug == "frozen-edit"
    assert str(caught.value.where) == "tiny.yaml:2:9"
    assert all(word in message for word in words), message


def test_a_reader_in_the_frozen_part_is_refused() -> None:
    top = "base: {model: own, size: 16}\nfreeze: {only: layer1.0.conv2}\n"
    with pytest.raises(TLCompileError, match=r"'layer1\.0\.conv2' is resized"):
        compiled("resize: {layer1.0.conv1: {out: 4}}", Residual(), top=top)


# T3


def members_error(text: str, base: nn.Module, top: str = SMALL) -> ResizeMembersError:
    with pytest.raises(ResizeMembersError) as caught:
        compiled(text, base, top=top)
    return caught.value


def test_a_resize_inside_a_sum_names_the_members_and_the_pasted_line_works() -> None:
    base, top = plain_model("resnet18"), "base: {model: own, size: 64}\nfreeze: none\n"
    error = members_error("resize: {layer4.1.conv2: {out: 256}}", base, top)
    message = str(error)
    assert "'layer4.1.add' adds 'layer4.1.conv2' (256) and 'layer4.0.relu_1' (512)" in message
    assert error.members == ("layer4.0.conv2", "layer4.0.downsample.0", "layer4.1.conv2")
    pasted = message[message.index("resize: {") :]
    model = compiled(pasted, base, top=top)
    assert model.get_parameter("layer4.1.conv2.weight").shape[0] == 256
    assert model.get_parameter("fc.weight").shape == (5, 256)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_the_pasted_line_keeps_what_the_lines_say() -> None:
    text = "resize: {stem: {out: 4, init: {name: normal, std: 0.5}, overlap: true}, fc: {out: 3}}"
    line = members_error("head: keep\n" + text, Residual()).line
    model = compiled("head: keep\n" + line, Residual())
    assert model.get_parameter("fc.weight").shape == (3, 12)
    assert {r.init for r in model.tensors() if r.name == "layer1.1.conv2.weight"} == {
        "normal(std=0.5), overlap kept"
    }


# What works


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_lines_compose_in_any_order(order: tuple[int, ...]) -> None:
    lines = ["stem: {out: 4}", "left: {out: 3, init: xavier_normal}", ("right: {out: 5, init: zeros,"
             " fan_out_init: ones}")]  # fmt: skip
    text = f"head: keep\nresize: {{{', '.join(lines[i] for i in order)}}}"
    model = compiled(text, shake(Branches()))
    first = compiled(f"head: keep\nresize: {{{', '.join(lines)}}}", shake(Branches()))
    assert first.state_dict().keys() == model.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert set(model.get_parameter("classifier.1.weight").unique().tolist()) == {1.0}


def test_everything_travels_through_groups_norms_and_prelu() -> None:
    model = compiled("head: keep\nresize: {stem: {out: 12}, grouped: {out: 16}}", Grouped())
    assert model.get_parameter("grouped.weight").shape == (16, 3, 3, 3)
    assert model.get_parameter("depthwise.weight").shape == (32, 1, 3, 3)
    assert model.get_submodule("depthwise").groups == 16
    assert (
        model.get_parameter("norm.weight").shape
        == model.get_parameter("prelu.weight").shape
        == (32,)
    )
    model(X).sum().backward()


def test_in_is_for_what_another_edit_feeds() -> None:
    """DL4J's nInReplace: the reader of a replaced layer; T4's bypass with the classifier kept."""
    text = "head: keep\nremove: {down: replace}\nadd: {down: {layer: conv2d, out: 9}}\n"
    model = compiled(text + "resize: {fc: {in: 9}}", Residual())
    assert model.get_parameter("fc.weight").shape == (10, 9)
    bypassed = compiled("head: keep\nremove: {down: bypass}\nresize: {fc: {in: 8}}", Residual())
    assert bypassed.get_parameter("fc.weight").shape == (10, 8)
    assert bypassed(X).shape == (2, 10)


def test_in_beside_a_resize_says_by_which_init() -> None:
    text = "resize: {conv: {out: 4, fan_out_init: xavier_normal}, fc: {in: 16, init: ones}}"
    with pytest.raises(TLCompileError, match="no reader of 'conv'"):
        compiled(text, Chain())
    model = compiled(text.replace(", fan_out_init: xavier_normal", ""), Chain())
    assert set(model.get_parameter("fc.weight").unique().tolist()) == {1.0}


def test_a_vertex_that_only_follows_may_die() -> None:
    model = compiled("outputs: bn\nresize: {conv: {out: 4}}", Chain())
    assert "fc.weight" not in model.state_dict()
    assert model(X).shape == (2, 4, 8, 8)


def test_the_default_init_is_that_of_fine_tune() -> None:
    model = compiled("fine_tune: {init: zeros}\nhead: keep\nresize: {conv: {out: 4}}", Chain())
    assert not model.get_parameter("conv.weight").any()
    assert not model.get_parameter("fc.weight").any()
    assert model.get_parameter("bn.weight").unique().tolist() == [1.0]  # torch's own, of a norm


def test_the_base_is_left_alone() -> None:
    base = shake(Chain())
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    compiled("resize: {conv: {out: 4, overlap: true}}", base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize(("base", "line"), [(Twice, "first: {out: 6}"), (Tied, "last: {out: 6}")])
def test_a_shared_layer_cannot_be_resized_for_one_place(base: type[nn.Module], line: str) -> None:
    with pytest.raises(TLCompileError) as caught:
        compiled(f"head: keep\nresize: {{{line}}}", base())
    assert caught.value.slug == "shared-width", caught.value


def test_a_module_called_twice_is_resized_for_both() -> None:
    model = compiled("head: keep\nresize: {mid: {out: 6}}", Twice())
    assert model.get_parameter("first.weight").shape == (4, 6)
    assert model.get_parameter("last.weight").shape == (3, 6)
    assert model(X).shape == (2, 3)


def test_shapes_are_known_after_the_pass() -> None:
    model_graph = graph_with_shapes(Chain())
    resize("conv", out=5).apply(model_graph)
    assert model_graph.names()["fc"].meta["values"][1].shape == (3, 10)


class Masked(nn.Module):
    """A map of one channel scales all others; two maps of one channel are added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mask, self.other = (nn.Conv2d(3, n, 1) for n in (4, 1, 1))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.stem(x) * (self.mask(x) + self.other(x)))


def test_what_was_broadcast_stays_as_it_is() -> None:
    model = compiled("head: keep\nresize: {stem: {out: 6}}", Masked())
    assert {r.name for r in model.tensors() if r.origin == "loaded"} >= {
        "mask.weight",
        "other.bias",
    }
    assert model(X).shape == (2, 2, 16, 16)


@pytest.mark.parametrize(
    ("base", "line", "members"),
    [
        (Masked, "mask: {out: 4}", ("mask", "other")),  # torch itself would broadcast the other
        (Residual, "layer1.0.conv2: {out: 1}", ("stem", "layer1.0.conv2", "layer1.1.conv2")),
    ],
)
def test_broadcasting_hides_no_member(
    base: type[nn.Module], line: str, members: tuple[str, ...]
) -> None:
    assert members_error(f"head: keep\nresize: {{{line}}}", base()).members == members
