"""Every layer type with settings of its own, and plain torch that computes the same; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it
from torchvision.ops import SqueezeExcitation


@dataclass(frozen=True)
class Row:
    """A layer, the vertices that it reads, and plain torch that computes the same.

    Attributes:
        module: Takes the new layer's weights, by the names that they have in the state dict.
        call: On that module (None without) and the inputs.
    """

    layer: dict[str, Any]
    inputs: list[str]
    module: Callable[[], nn.Module] | None = None
    call: Callable[..., Tensor] = lambda module, *inputs: module(*inputs)

    def __str__(self) -> str:
        return f"{self.layer['layer']}-{self.inputs[0]}"


def plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda _module, *inputs: function(*inputs)


def separable(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    def module() -> nn.Module:
        both = nn.Sequential()
        both.depthwise = kind(4, 8, 3, padding=1, groups=4, bias=False)  # type: ignore[call-arg]
        both.pointwise = kind(8, 5, 1)  # type: ignore[call-arg]
        return both

    return module


def noisy(value: Tensor, noise: Callable[[Tensor], Tensor], training: bool) -> Tensor:
    return noise(value) if training else value


V, T, M, D = "vector", "tokens", "body", "volume"  # (4,), (4, 36), (4, 6, 6), (4, 2, 3, 6)
WINDOW = {"kernel": 3, "stride": 2, "padding": 1, "groups": 2}
SAME = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}
EIGHT = {"layer": "linear", "out": 8, "inputs": T}  # under the name `eight`: (4, 8)

ROWS = [
    Row({"layer": "linear", "out": 7}, [V], lambda: nn.Linear(4, 7)),
    Row({"layer": "linear", "out": 7, "bias": False}, [T], lambda: nn.Linear(36, 7, bias=False)),
    Row({"layer": "bilinear", "out": 3}, [V, V], lambda: nn.Bilinear(4, 4, 3)),
    Row({"layer": "conv1d", "out": 6, **WINDOW}, [T], lambda: nn.Conv1d(4, 6, **SAME)),
    Row({"layer": "conv2d", "out": 6, **WINDOW}, [M], lambda: nn.Conv2d(4, 6, **SAME)),
    Row(
        {"layer": "conv2d", "out": 5, "kernel": [1, 3], "padding": "same", "dilation": 2},
        [M],
        lambda: nn.Conv2d(4, 5, (1, 3), padding="same", dilation=2),
    ),
    Row(
        {"layer": "conv2d", "out": 5, "padding": 1, "padding_mode": "reflect"},
        [M],
        lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),
    ),
    Row({"layer": "conv3d", "out": 6, **WINDOW}, [D], lambda: nn.Conv3d(4, 6, **SAME)),
    Row(
        {"layer": "conv_transpose1d", "out": 6, **WINDOW, "output_padding": 1},
        [T],
        lambda: nn.ConvTranspose1d(4, 6, **SAME, output_padding=1),
    ),
    Row(
        {"layer": "conv_transpose2d", "out": 6, **WINDOW},
        [M],
        lambda: nn.ConvTranspose2d(4, 6, **SAME),
    ),
    Row(
        {"layer": "conv_transpose3d", "out": 6, **WINDOW},
        [D],
        lambda: nn.ConvTranspose3d(4, 6, **SAME),
    ),
    Row(
        {"layer": "depthwise_conv2d", "depth_multiplier": 2},
        [M],
        lambda: nn.Conv2d(4, 8, 3, groups=4),
    ),
    Row(
        {"layer": "separable_conv1d", "out": 5, "padding": 1, "depth_multiplier": 2},
        [T],
        separable(nn.Conv1d),
    ),
    Row(
        {"layer": "separable_conv2d", "out": 5, "padding": 1, "depth_multiplier": 2},
        [M],
        separable(nn.Conv2d),
    ),
    Row({"layer": "batch_norm", "eps": 1e-3}, [V], lambda: nn.BatchNorm1d(4, 1e-3)),
    Row({"layer": "batch_norm", "momentum": 0.5}, [T], lambda: nn.BatchNorm1d(4, momentum=0.5)),
    Row({"layer": "batch_norm", "affine": False}, [M], lambda: nn.BatchNorm2d(4, affine=False)),
    Row({"layer": "batch_norm"}, [D], lambda: nn.BatchNorm3d(4)),
    Row({"layer": "layer_norm"}, [V], lambda: nn.LayerNorm(4)),
    Row({"layer": "layer_norm", "eps": 1e-3}, [T], lambda: nn.LayerNorm(36, 1e-3)),
    Row(
        {"layer": "layer_norm", "channels_first": True},
        [M],
        lambda: nn.LayerNorm(4),
        lambda norm, m: norm(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    ),
    Row({"layer": "rms_norm"}, [T], lambda: nn.RMSNorm(36, 1e-6)),
    Row({"layer": "group_norm", "num_groups": 2}, [M], lambda: nn.GroupNorm(2, 4)),
    Row({"layer": "instance_norm"}, [T], lambda: nn.InstanceNorm1d(4)),
    Row({"layer": "instance_norm", "affine": True}, [M], lambda: nn.InstanceNorm2d(4, affine=True)),
    Row({"layer": "instance_norm"}, [D], lambda: nn.InstanceNorm3d(4)),
    Row(
        {"layer": "local_response_norm", "size": 3, "alpha": 0.1, "k": 2},
        [M],
        lambda: nn.LocalResponseNorm(3, alpha=0.1, k=2),
    ),
    Row({"layer": "l2_normalise"}, [M], None, plain(lambda m: F.normalize(m, dim=1))),
    Row({"layer": "dropout", "p": 0.3}, [V], lambda: nn.Dropout(0.3)),
    Row({"layer": "alpha_dropout", "p": 0.3}, [V], lambda: nn.AlphaDropout(0.3)),
    Row({"layer": "feature_alpha_dropout", "p": 0.3}, [M], lambda: nn.FeatureAlphaDropout(0.3)),
    Row(
        {"layer": "gaussian_dropout", "p": 0.2},
        [V],
        nn.Identity,
        lambda one, v: noisy(v, lambda v: v * (1 + torch.randn_like(v) * 0.5), one.training),
    ),
    Row(
        {"layer": "gaussian_noise", "std": 0.3},
        [V],
        nn.Identity,
        lambda one, v: noisy(v, lambda v: v + torch.randn_like(v) * 0.3, one.training),
    ),
    Row({"layer": "spatial_dropout", "p": 0.3}, [T], lambda: nn.Dropout1d(0.3)),
    Row({"layer": "spatial_dropout", "p": 0.3}, [M], lambda: nn.Dropout2d(0.3)),
    Row({"layer": "spatial_dropout", "p": 0.3}, [D], lambda: nn.Dropout3d(0.3)),
    Row({"layer": "activation", "name": "gelu"}, [V], nn.GELU),
    Row(
        {"layer": "activation", "name": "leaky_relu", "negative_slope": 0.3},
        [M],
        lambda: nn.LeakyReLU(0.3),
    ),
    Row({"layer": "activation", "name": "softmax", "dim": -1}, [T], lambda: nn.Softmax(-1)),
    Row({"layer": "prelu", "slope": 0.1}, [M], lambda: nn.PReLU(init=0.1)),
    Row({"layer": "prelu", "per_channel": True}, [M], lambda: nn.PReLU(4)),
    Row({"layer": "max_pool", "kernel": 3, "padding": 1}, [T], lambda: nn.MaxPool1d(3, padding=1)),
    Row({"layer": "max_pool"}, [M], lambda: nn.MaxPool2d(2)),
    Row({"layer": "max_pool", "kernel": [1, 2, 3]}, [D], lambda: nn.MaxPool3d((1, 2, 3))),
    Row({"layer": "avg_pool", "kernel": 3, "stride": 1}, [T], lambda: nn.AvgPool1d(3, 1)),
    Row(
        {"layer": "avg_pool", "kernel": 3, "padding": 1, "count_include_pad": False},
        [M],
        lambda: nn.AvgPool2d(3, padding=1, count_include_pad=False),
    ),
    Row({"layer": "avg_pool", "kernel": [1, 2, 3]}, [D], lambda: nn.AvgPool3d((1, 2, 3))),
    Row({"layer": "lp_pool", "kernel": 3}, [T], lambda: nn.LPPool1d(2, 3)),
    Row({"layer": "lp_pool", "norm_type": 1}, [M], lambda: nn.LPPool2d(1, 2)),
    Row({"layer": "lp_pool", "kernel": [1, 2, 3]}, [D], lambda: nn.LPPool3d(2, (1, 2, 3))),
    Row({"layer": "adaptive_avg_pool", "output_size": 5}, [T], lambda: nn.AdaptiveAvgPool1d(5)),
    Row(
        {"layer": "adaptive_avg_pool", "output_size": [2, 3]},
        [M],
        lambda: nn.AdaptiveAvgPool2d((2, 3)),
    ),
    Row({"layer": "adaptive_max_pool", "output_size": 2}, [D], lambda: nn.AdaptiveMaxPool3d(2)),
    Row({"layer": "global_pool"}, [M], None, plain(lambda m: F.adaptive_avg_pool2d(m, 1))),
    Row({"layer": "global_pool", "kind": "max"}, [T], lambda: nn.AdaptiveMaxPool1d(1)),
    Row(
        {"layer": "global_pool", "kind": "sum"}, [D], None, plain(lambda d: d.sum((2, 3, 4), True))
    ),
    Row(
        {"layer": "global_pool", "kind": "lp", "norm_type": 3},
        [M],
        None,
        plain(lambda m: torch.linalg.vector_norm(m, 3, (2, 3), True)),
    ),
    Row({"layer": "global_pool", "tokens": True}, [T], None, plain(lambda t: t.mean(1))),
    Row(
        {"layer": "global_pool", "tokens": True, "kind": "max"},
        [T],
        None,
        plain(lambda t: t.amax(1)),
    ),
    Row(
        {"layer": "rnn", "hidden_size": 5, "nonlinearity": "relu"},
        [T],
        lambda: nn.RNN(36, 5, nonlinearity="relu", batch_first=True),
        lambda rnn, t: rnn(t)[0],
    ),
    Row(
        {
            "layer": "lstm",
            "hidden_size": 5,
            "num_layers": 2,
            "bidirectional": True,
            "layer_dropout": 0.4,
        },
        [T],
        lambda: nn.LSTM(36, 5, 2, batch_first=True, bidirectional=True, dropout=0.4),
        lambda lstm, t: lstm(t)[0],
    ),
    Row(
        {"layer": "gru", "hidden_size": 5, "bias": False},
        [T],
        lambda: nn.GRU(36, 5, bias=False, batch_first=True),
        lambda gru, t: gru(t)[0],
    ),
    Row(
        {"layer": "multi_head_attention", "num_heads": 4},
        [T],
        lambda: nn.MultiheadAttention(36, 4, batch_first=True),
        lambda attention, t: attention(t, t, t, need_weights=False)[0],
    ),
    Row(
        {"layer": "multi_head_attention", "num_heads": 3, "attention_dropout": 0.4},
        [T, "eight", "eight"],
        lambda: nn.MultiheadAttention(36, 3, 0.4, kdim=8, vdim=8, batch_first=True),
        lambda attention, q, k, v: attention(q, k, v, need_weights=False)[0],
    ),
    Row(
        {"layer": "dot_product_attention"},
        [T],
        None,
        plain(lambda t: F.scaled_dot_product_attention(t, t, t)),
    ),
    Row(
        {"layer": "dot_product_attention", "scale": 0.5},
        [T, T, "eight"],
        None,
        plain(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5)),
    ),
    Row(
        {"layer": "squeeze_excitation", "squeeze_channels": 2},
        [M],
        lambda: SqueezeExcitation(4, 2),
    ),
    Row({"layer": "flatten"}, [M], None, plain(lambda m: m.flatten(1))),
    Row({"layer": "reshape", "shape": [2, -1]}, [V], None, plain(lambda v: v.reshape(-1, 2, 2))),
    Row({"layer": "permute", "dims": [2, 1]}, [T], None, plain(lambda t: t.transpose(1, 2))),
    Row(
        {"layer": "pad", "padding": [1, 0, 2, 0], "value": 3},
        [M],
        lambda: nn.ConstantPad2d((1, 0, 2, 0), 3.0),
    ),
    Row({"layer": "pad", "padding": 2, "mode": "reflect"}, [T], lambda: nn.ReflectionPad1d(2)),
    Row({"layer": "pad", "padding": 1, "mode": "replicate"}, [D], lambda: nn.ReplicationPad3d(1)),
    Row({"layer": "crop", "crop": 1}, [M], None, plain(lambda m: m[:, :, 1:-1, 1:-1])),
    Row({"layer": "crop", "crop": [1, 0, 1, 0]}, [M], None, plain(lambda m: m[:, :, 1:, 1:])),
    Row({"layer": "upsample", "scale_factor": 2}, [T], lambda: nn.Upsample(scale_factor=2)),
    Row(
        {"layer": "upsample", "size": [9, 8], "mode": "bilinear", "align_corners": True},
        [M],
        lambda: nn.Upsample((9, 8), mode="bilinear", align_corners=True),
    ),
    Row({"layer": "pixel_shuffle", "upscale_factor": 2}, [M], lambda: nn.PixelShuffle(2)),
    Row({"layer": "pixel_unshuffle", "downscale_factor": 3}, [M], lambda: nn.PixelUnshuffle(3)),
    Row({"layer": "last_step"}, [T], None, plain(lambda t: t[:, -1])),
    Row({"layer": "reverse_time"}, [T], None, plain(lambda t: t.flip(1))),
    Row({"layer": "repeat", "times": 3}, [V], None, plain(lambda v: torch.stack([v] * 3, 1))),
    Row({"layer": "repeat"}, [V, T], None, plain(lambda v, t: torch.stack([v] * t.size(1), 1))),
    Row({"layer": "concat"}, [M, M], None, plain(lambda m, n: torch.cat([m, n], 1))),
    Row({"layer": "concat", "dim": -1}, [T, "eight"], None, plain(lambda *i: torch.cat(i, 2))),
    Row({"layer": "add"}, [V, V, V], None, plain(lambda u, v, w: u + v + w)),
    Row({"layer": "subtract"}, [V, V], None, plain(lambda u, v: u - v)),
    Row({"layer": "multiply"}, [V, V], None, plain(lambda u, v: u * v)),
    Row({"layer": "average"}, [V, V], None, plain(lambda u, v: (u + v) / 2)),
    Row({"layer": "maximum"}, [V, V], None, plain(torch.maximum)),
    Row(
        {"layer": "pairwise_distance"},
        [V, V],
        None,
        plain(lambda u, v: F.pairwise_distance(u, v, keepdim=True)),
    ),
    Row({"layer": "dot_product"}, [V, V], None, plain(lambda u, v: (u * v).sum(1, keepdim=True))),
    Row({"layer": "subset", "first": 1, "last": 2}, [V], None, plain(lambda v: v[:, 1:3])),
    Row({"layer": "scale", "by": 2.5}, [V], None, plain(lambda v: v * 2.5)),
    Row({"layer": "shift", "by": -1}, [V], None, plain(lambda v: v - 1)),
]  # fmt: skip

# (layer, inputs): each is refused, by its shapes, its inputs, or by torch itself.

WRONG = [
    ({"layer": "linear", "out": 7}, [M]),
    ({"layer": "bilinear", "out": 7}, [V, T]),
    ({"layer": "embedding", "num_embeddings": 9, "out": 2}, [V]),
    ({"layer": "conv1d", "out": 6}, [M]),
    ({"layer": "conv2d", "out": 6, "groups": 3}, [M]),
    ({"layer": "conv2d", "out": 5, "groups": 2}, [M]),
    ({"layer": "conv2d", "out": 4, "stride": 2, "padding": "same"}, [M]),
    ({"layer": "conv2d", "out": 4, "kernel": 9}, [M]),
    ({"layer": "conv_transpose2d", "out": 4, "output_padding": 1}, [M]),
    ({"layer": "depthwise_conv2d"}, [V]),
    ({"layer": "separable_conv1d", "out": 4}, [M]),
    ({"layer": "layer_norm"}, [M]),
    ({"layer": "layer_norm", "channels_first": True}, [V]),
    ({"layer": "rms_norm"}, [M]),
    ({"layer": "group_norm", "num_groups": 3}, [M]),
    ({"layer": "instance_norm"}, [V]),
    ({"layer": "local_response_norm", "size": 2}, [V]),
    ({"layer": "spatial_dropout"}, [V]),
    ({"layer": "activation", "name": "softmax", "dim": 3}, [V]),
    ({"layer": "max_pool", "kernel": 2, "padding": 2}, [M]),
    ({"layer": "max_pool", "kernel": [2, 2, 2]}, [M]),
    ({"layer": "lp_pool"}, [V]),
    ({"layer": "adaptive_avg_pool", "output_size": [1, 2]}, [T]),
    ({"layer": "global_pool"}, [V]),
    ({"layer": "global_pool", "tokens": True}, [M]),
    ({"layer": "lstm", "hidden_size": 3}, [V]),
    ({"layer": "multi_head_attention", "num_heads": 5}, [T]),
    ({"layer": "multi_head_attention", "num_heads": 4}, [T, T]),
    ({"layer": "dot_product_attention"}, [T, "eight", T]),
    ({"layer": "squeeze_excitation"}, [V]),
    ({"layer": "reshape", "shape": [3, -1]}, [V]),
    ({"layer": "permute", "dims": [2, 1]}, [M]),
    ({"layer": "pad", "padding": [1, 1]}, [M]),
    ({"layer": "pad", "padding": 7, "mode": "reflect"}, [M]),
    ({"layer": "crop", "crop": 3}, [M]),
    ({"layer": "upsample", "scale_factor": 2, "mode": "linear"}, [M]),
    ({"layer": "pixel_shuffle", "upscale_factor": 3}, [M]),
    ({"layer": "pixel_unshuffle", "downscale_factor": 4}, [M]),
    ({"layer": "last_step"}, [M]),
    ({"layer": "reverse_time"}, [V]),
    ({"layer": "repeat"}, [V]),
    ({"layer": "repeat", "times": 3}, [V, T]),
    ({"layer": "concat"}, [M]),
    ({"layer": "concat", "dim": -1}, [V, T]),
    ({"layer": "add"}, [M, V]),
    ({"layer": "subtract"}, [V, V, V]),
    ({"layer": "pairwise_distance"}, [V, T]),
    ({"layer": "dot_product"}, [V, M]),
    ({"layer": "subset", "first": 2, "last": 4}, [V]),
    ({"layer": "stack"}, [V, T]),
    ({"layer": "unstack", "index": 0, "num": 2}, [V]),
]
