"""The examples of docs/extend.md and the tables of docs/layers.md are right: they run here."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recipe import layer_rows
from recipe.layer_rows import Row
from recipe.many_shapes import INPUTS, compiled
from recipe.test_initialisers import words as initialiser_words
from recipe.test_layers import plain_output, words_of_the_registry
from torch import nn

from tlcompile.errors.edits import ShapeError
from tlcompile.recipe.layers import plugins
from tlcompile.recipe.layers.plugins import Plugin

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"<!-- ([a-z ]+) -->\n```python\n(.*?)```", re.DOTALL)
EXAMPLES = dict(BLOCK.findall((DOCS / "extend.md").read_text(encoding="utf-8")))


def test_the_page_has_its_examples() -> None:
    assert list(EXAMPLES) == ["layer", "layer test", "plugin", "pass", "pass test"]


def module_of(name: str, example: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute an example as a module of this name, for this test alone."""
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(EXAMPLES[example], f"extend.md, {example}", "exec"), vars(module))
    return vars(module)


def known(layer: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let recipes use a layer type, as if it were named in BuiltIn."""
    (word,) = layer.model_fields["layer"].annotation.__args__
    monkeypatch.setitem(plugins._ALLOWED, word, Plugin(word, "docs", "0", layer))


def test_the_layer_type_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    known(module_of("extend_layer", "layer", monkeypatch)["ChannelShuffle"], monkeypatch)
    row: Row = eval(EXAMPLES["layer test"], vars(layer_rows))
    model = compiled(row.layer, row.inputs).eval()
    x = torch.randn(3, 3, 6, 6)
    expected, _ = plain_output(row, model, x)
    assert torch.equal(model(x), expected)
    assert not torch.equal(model(x), INPUTS["body"](model, x))
    with pytest.raises(ShapeError, match="the groups divide"):
        compiled({**row.layer, "groups": 3}, row.inputs)


def test_the_layer_of_a_package_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    known(module_of("acme_layers", "plugin", monkeypatch)["SwapLayer"], monkeypatch)
    model = compiled({"layer": "swap"}, ["vector"]).eval()
    x = torch.randn(3, 3, 6, 6)
    assert torch.equal(model(x), INPUTS["vector"](model, x).flip(1))


def test_the_pass_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    module_of("tlcompile.passes.without_dropout", "pass", monkeypatch)
    tests = module_of("extend_pass_test", "pass test", monkeypatch)
    run = [value for name, value in tests.items() if name.startswith("test_")]
    assert len(run) == 2
    for test in run:
        test()


LAYERS = (DOCS / "layers.md").read_text(encoding="utf-8")
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in LAYERS.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| DL4J"))
]


def test_the_tables_name_every_word() -> None:
    assert len(TABLE) > 75
    code = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]*)`", LAYERS))))
    missing = {*words_of_the_registry(), *initialiser_words()} - code
    assert missing == set()


def words_in(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_the_tables_name_every_vertex_and_layer_of_dl4j() -> None:
    """As listed in DL4J's conf/graph and conf/layers."""
    named = " ".join(row[0] for row in TABLE)
    wanted = words_in(
        "Merge ElementWise Subset Stack Unstack Scale Shift L2 L2Normalize DotProduct Reshape "
        "Preprocessor PoolHelper Attention DotProductAttention LastTimeStep DuplicateToTimeSeries "
        "ReverseTimeSeries Frozen SameDiff SameDiffLambda Input Layer"
    )
    assert len(wanted) == 23
    assert [word for word in wanted if f"{word}Vertex" not in named] == []
    layers = words_in(
        "Dense EinsumDense ElementWiseMultiplication Output Loss CenterLossOutput Yolo2Output OCNNOutput "
        "Convolution1D Deconvolution1D DepthwiseConvolution2D SeparableConvolution1D LocallyConnected1D "
        "Subsampling GlobalPooling Upsampling1D ZeroPadding1D Cropping1D SpaceToBatch SpaceToDepth "
        "BatchNormalization LocalResponseNormalization LayerNormalization GroupNormalization "
        "UnitNormalization Activation PReLU Dropout AlphaDropout GaussianNoise LSTM GravesLSTM GRU SimpleRnn "
        "Bidirectional LastTimeStep TimeDistributed MaskLayer MaskZero RepeatVector SelfAttention "
        "LearnedSelfAttention RecurrentAttention Embedding EmbeddingSequence PrimaryCapsules Gcn Gat Gin "
        "GraphSage AutoEncoder VariationalAutoencoder FrozenLayer SameDiffLayer"
    )
    assert len(layers) == 54
    assert [word for word in layers if word not in named] == []


def test_what_is_not_done_says_why() -> None:
    undone = [row[1] for row in TABLE if row[1].startswith("not ")]
    assert len(undone) > 10
    assert all(re.match(r"not (done|needed): .{15}", text) for text in undone)


def test_every_initialiser_in_the_tables_is_one() -> None:
    mappings = [yaml.safe_load(text) for text in re.findall(r"`(\{name: [^`]*\})`", LAYERS)]
    assert len(mappings) > 6
    for init in mappings:
        layer = {"layer": "linear", "out": 3, "init": init}
        assert compiled(layer, ["vector"]).get_parameter("new.weight").shape == (3, 4)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ({"name": "kaiming_uniform", "nonlinearity": "leaky_relu", "a": 5**0.5}, (1 / 3) ** 0.5),
        ("lecun_normal", 1.0),
        ("lecun_uniform", 1.0),
    ],
)
def test_deviation_times_root_of_fan_in_is_as_the_table_says(init: Any, deviation: float) -> None:
    layer = {"layer": "linear", "out": 20000, "init": init}
    weight = compiled(layer, ["vector"]).get_parameter("new.weight")
    assert isinstance(weight, nn.Parameter)
    assert float(weight.detach().std()) * 4**0.5 == pytest.approx(deviation, rel=0.02)
