"""DL4J's tests of its two builders, against modules written by hand. Case ids: docs/dl4j.md.

PyTorch has one kind of network where DL4J has two, so a case of both is one test.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from graph.tiny import recipe_of
from torch import Tensor, nn

from parity.dl4j import chain, compiled, fit, labelled, tensors, unequal
from parity.plain import differences
from tlcompile.compiler import compile_recipe
from tlcompile.training.optim import build_optimizer

KEEP = "head: keep\nfreeze: none\n"


def test_a1_b1_new_settings_change_nothing_but_the_training() -> None:
    text = "fine_tune: {seed: 12345, optimizer: {name: rmsprop, lr: 0.5, weight_decay: 0.4}}\n"
    base = chain(4, 3, 3)
    model = compiled(KEEP + text, base)
    assert not unequal(model, base)
    chosen = recipe_of("base: m\n" + text).fine_tune.optimizer
    options = chosen.model_dump(exclude={"name", "lr"})
    assert chosen.lr is not None
    ours = build_optimizer(chosen.name, list(model.trainable()), lr=chosen.lr, **options)
    theirs = torch.optim.RMSprop(base.parameters(), lr=0.5, weight_decay=0.4)
    batches = labelled(10, 4)
    assert fit(model, batches, optimizer=ours) == fit(base, batches, optimizer=theirs)
    assert not unequal(model, base)


class Video(nn.Module):
    """A 3d convolution over frames (a kernel of one frame), dense layers, an LSTM, an output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 6, (1, 4, 4), stride=(1, 2, 2))
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.conv2 = nn.Conv3d(6, 9, (1, 3, 3))
        self.dense = nn.Linear(36, 11)
        self.rnn = nn.LSTM(11, 8, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv2(self.pool(self.conv1(input)))
        x = x.permute(0, 2, 1, 3, 4).flatten(2)
        return self.out(self.rnn(self.dense(x))[0])


class OtherVideo(nn.Module):
    """The same beginning, and other layers behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 6, (1, 4, 4), stride=(1, 2, 2))
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.conv3 = nn.Conv3d(6, 5, (1, 3, 3))
        self.dense2 = nn.Linear(20, 7)
        self.memory = nn.LSTM(7, 7, batch_first=True)
        self.score = nn.Linear(7, 4)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv3(self.pool(self.conv1(input)))
        x = x.permute(0, 2, 1, 3, 4).reshape(len(x), 5, -1)
        return self.score(self.memory(torch.relu(self.dense2(x)))[0])


VIDEO = """
freeze: none
remove: {conv2: drop, permute: drop, flatten: drop, dense: drop, rnn: drop, getitem: drop, out: drop}
add:
  conv3: {layer: conv3d, out: 5, kernel: [1, 3, 3], inputs: pool}
  in_time: {layer: permute, dims: [2, 1, 3, 4], inputs: conv3}
  frames: {layer: reshape, shape: [5, -1], inputs: in_time}
  dense2: {layer: linear, out: 7, activation: relu, inputs: frames}
  memory: {layer: lstm, hidden_size: 7, inputs: dense2}
  score: {layer: linear, out: 4, inputs: memory}
outputs: [score]
fine_tune: {init: kaiming_normal}
"""


def video_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return tensors by the names that they have in plain PyTorch: an added LSTM holds torch's own."""
    return {name.replace(".cells.", "."): tensor for name, tensor in tensors(model).items()}


def test_a4_a_video_network_with_five_layers_off_and_on() -> None:
    base, plain = Video(), OtherVideo()
    model = compiled(VIDEO, base, shape=(3, 5, 18, 18))
    assert not differences(tensors(model, "conv1"), tensors(base, "conv1"))
    plain.load_state_dict(video_tensors(model))  # the same names and shapes, none left over
    batches = [((torch.randn(2, 3, 5, 18, 18),), (torch.randint(4, (2, 5)),)) for _ in range(3)]
    assert fit(model, batches) == fit(plain, batches)
    assert not differences(video_tensors(model), tensors(plain))


class Cnn(nn.Module):
    """Two convolutions with pooling, and three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(3, 4, 5)
        self.layer1 = nn.MaxPool2d(2)
        self.layer2 = nn.Conv2d(4, 5, 5)
        self.layer3 = nn.MaxPool2d(2)
        self.layer4 = nn.Linear(80, 10)
        self.layer5 = nn.Linear(10, 9)
        self.layer6 = nn.Linear(9, 7)

    def forward(self, input: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.layer0(input))))
        return self.layer6(self.layer5(self.layer4(x.flatten(1))))


IMAGE = (3, 28, 28)

TAIL = """
freeze: layer1
remove: {layer5: drop, layer6: drop}
add:
  fc5: {layer: linear, out: 8, activation: tanh, inputs: layer4}
  fc6: {layer: linear, out: 6, activation: tanh, inputs: fc5}
  fc7: {layer: linear, out: classes, inputs: fc6}
outputs: [fc7]
"""


class Tail(nn.Module):
    """What is behind the frozen first layers, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2 = nn.Conv2d(4, 5, 5)
        self.layer4 = nn.Linear(80, 10)
        self.fc5, self.fc6, self.fc7 = nn.Linear(10, 8), nn.Linear(8, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(nn.functional.max_pool2d(self.layer2(x), 2).flatten(1))
        return self.fc7(torch.tanh(self.fc6(torch.tanh(self.fc5(x)))))


def test_a5_b4_a_tail_on_frozen_features_trains_as_the_whole() -> None:
    """Case A5 and B4 without the resize of layer4, which test_dl4j_resize.py has."""
    base, tail = Cnn(), Tail()
    model = compiled(TAIL, base, shape=IMAGE, classes=10)
    tail.load_state_dict({n: t for n, t in model.state_dict().items() if "layer0" not in n})
    batches = labelled(10, *IMAGE, classes=10, steps=3)
    with torch.no_grad():
        features = [((base.layer1(base.layer0(x)),), y) for (x,), y in batches]
    assert fit(model, batches) == fit(tail, features)
    assert not differences(tensors(model), tensors(base, "layer0") | tensors(tail))
    frozen = [row.name for row in model.tensors() if row.state == "frozen"]
    assert frozen == ["layer0.weight", "layer0.bias"]


SHORT = """
freeze: layer1
remove: {layer2: drop, layer3: drop, flatten: drop, layer4: drop, layer5: drop, layer6: drop}
add:
  flat: {layer: flatten, inputs: layer1}
  fc1: {layer: linear, out: 30, activation: relu, inputs: flat}
  fc2: {layer: linear, out: classes, inputs: fc1}
outputs: [fc2]
"""


def test_a7_dense_layers_right_behind_the_frozen_convolution() -> None:
    base = Cnn()
    model = compiled(SHORT, base, shape=IMAGE, classes=10)
    tail = nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(), fc1=nn.Linear(12 * 12 * 4, 30), act=nn.ReLU(), fc2=nn.Linear(30, 10)
        )
    )
    tail.load_state_dict({n: t for n, t in model.state_dict().items() if "layer0" not in n})
    batches = labelled(10, *IMAGE, classes=10, steps=3)
    with torch.no_grad():
        features = [((base.layer1(base.layer0(x)),), y) for (x,), y in batches]
    assert fit(model, batches) == fit(tail, features)
    assert not differences(tensors(model), tensors(base, "layer0") | tensors(tail))


def test_a6_one_setting_leaves_the_others_as_they_were() -> None:
    base = chain(4, 3, 3, between=nn.Tanh)
    before = copy.deepcopy(base)
    tune = "fine_tune: {optimizer: {name: adam, lr: 2e-2}, activation: relu, init: zeros}\n"
    text = "freeze: none\nadd: {extra: {layer: linear, out: 3, inputs: act0, feeds: layer1}}\n"
    model = compiled("head: keep\n" + text + tune, base)
    assert type(model.get_submodule("act0")) is nn.Tanh  # `activation` is for new layers
    assert type(model.get_submodule("extra.activation")) is nn.ReLU
    assert not differences(tensors(model, "layer0", "layer1"), tensors(base))
    assert not model.get_parameter("extra.weight").any()
    assert not unequal(base, before)
    assert [type(m) for m in base.modules()] == [type(m) for m in before.modules()]
    settings = recipe_of("base: m\n" + tune + "add: {a: {layer: linear, out: 3}}\n").fine_tune
    assert settings.optimizer.model_dump()["betas"] == (0.9, 0.999)  # what is not said stays


def test_a8_b6_a_dropout_of_the_base_can_be_cleared() -> None:
    """Weight penalties are the optimizer's and off unless written; DropConnect: see docs/dl4j.md."""
    base = nn.Sequential(OrderedDict(fc0=nn.Linear(4, 6), drop=nn.Dropout(), fc1=nn.Linear(6, 3)))
    model = compiled(KEEP + "remove: {drop: bypass}\n", base)
    plain = nn.Sequential(OrderedDict(fc0=nn.Linear(4, 6), fc1=nn.Linear(6, 3)))
    plain.load_state_dict(model.state_dict())
    assert not any(isinstance(m, nn.Dropout) for m in model.modules())
    batches = labelled(10, 4, steps=3)
    assert fit(model, batches) == fit(plain, batches)
    assert not unequal(model, plain)
    kept = compiled(KEEP, base)
    assert fit(kept, batches) == fit(base, batches)  # unset is not cleared
    assert (
        recipe_of("base: m\nfine_tune: {optimizer: sgd}\n").fine_tune.optimizer.model_dump()[
            "weight_decay"
        ]
        == 0.0
    )


class Recurrent(nn.Module):
    """An LSTM, self-attention, the largest value of each feature over time, an output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, input: Tensor) -> Tensor:
        x = self.lstm(input)[0]
        x = self.attention(x, x, x)[0]
        return self.out(x.amax(1))


def test_a11_attention_over_a_recurrent_layer_keeps_its_weights() -> None:
    """DL4J runs it in double; ours is compiled in float32 and moved to double afterwards."""
    base = Recurrent()
    model = compiled(
        "freeze: none\nremove: {out: replace}\nadd: {out: {layer: linear, out: 2}}\n",
        base,
        shape=(5, 4),
    )
    assert not differences(tensors(model, "lstm", "attention"), tensors(base, "lstm", "attention"))
    assert unequal(model, base) == ["out.weight", "out.bias"]
    model.load_state_dict(base.state_dict())
    x = torch.randn(3, 5, 4)
    assert torch.equal(model(x), base(x))
    assert torch.equal(model.double()(x.double()), base.double()(x.double()))


class Pooled(nn.Module):
    """A bidirectional LSTM, the mean over time, a dense layer, an output for numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.blstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(10, 10)
        self.out = nn.Linear(10, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self.out(torch.sigmoid(self.dense(self.blstm(input)[0].mean(1))))


def test_b5_frozen_up_to_a_dense_layer_behind_a_pooling_over_time() -> None:
    base = Pooled()
    text = "freeze: dense\nremove: {out: replace}\nadd: {out: {layer: linear, out: classes}}\n"
    model = compiled(text, base, shape=(7, 6), classes=5)
    plain = Pooled()
    plain.out = nn.Linear(10, 5)
    plain.load_state_dict(model.state_dict())
    for part in (plain.blstm, plain.dense):
        part.requires_grad_(False)
    before = tensors(model, "blstm", "dense")
    batches = labelled(4, 7, 6, classes=5, steps=3)
    assert fit(model, batches) == fit(plain, batches)
    assert not unequal(model, plain)
    assert not differences(tensors(model, "blstm", "dense"), before)
    assert [name for name, _ in model.trainable()] == ["out.weight", "out.bias"]


class Attended(nn.Module):
    """An LSTM whose steps attend to each other; an output at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.l0 = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, input: Tensor) -> Any:
        x = self.l0(input)[0]
        return self.out(self.attention(x, x, x)[0])


def test_b9_b10_a_new_output_behind_attention_with_weights_of_its_own() -> None:
    """DL4J's vertex with parameters comes out newly initialised; ours keeps them."""
    base = Attended()
    text = "freeze: none\nremove: {out: drop}\n"
    text += "add: {newOut: {layer: linear, out: 3, inputs: getitem_1}}\noutputs: [newOut]\n"
    model = compiled(text, base, shape=(5, 4))
    assert not differences(tensors(model, "l0", "attention"), tensors(base, "l0", "attention"))
    with torch.no_grad():
        model.get_parameter("newOut.weight").copy_(base.out.weight)
        model.get_parameter("newOut.bias").copy_(base.out.bias)
    x = torch.randn(3, 5, 4)
    assert torch.equal(model(x), base(x))
    batches = [((x,), (torch.randint(3, (3, 5)),)) for _ in range(3)]
    assert fit(model, batches) == fit(base, batches)
    ours = [t for _, t in model.state_dict().items()]
    assert all(map(torch.equal, ours, base.state_dict().values()))


def test_names_of_an_input_and_two_edits_at_once() -> None:
    """The builders' simplest use: name a vertex, take the last one away, put another there."""
    text = "base: {model: own}\ninputs: {input: {shape: [4]}}\nfreeze: act0\n"
    text += "remove: {layer1: replace}\nadd: {layer1: {layer: linear, out: classes}}\n"
    base = chain(4, 5, 3)
    model = compile_recipe(recipe_of(text), base=base, num_classes=2)
    x = torch.randn(2, 4)
    plain = nn.functional.linear(
        base[:2](x), model.get_parameter("layer1.weight"), model.get_parameter("layer1.bias")
    )
    assert torch.equal(model(x), plain)
