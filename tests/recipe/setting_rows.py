"""Settings of layers that layer_rows.py leaves at their defaults, and plain torch that computes the same."""

from __future__ import annotations

from recipe.layer_rows import M, Row, T, V, plain
from torch import nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

SETTINGS = [
    Row(
        {"layer": "conv_transpose2d", "out": 5, "kernel": 2, "dilation": 2},
        [M],
        lambda: nn.ConvTranspose2d(4, 5, 2, dilation=2),
    ),
    Row({"layer": "rms_norm", "eps": 0.1}, [T], lambda: nn.RMSNorm(36, 0.1)),
    Row({"layer": "group_norm", "num_groups": 2, "eps": 0.1}, [M], lambda: nn.GroupNorm(2, 4, 0.1)),
    Row(
        {"layer": "group_norm", "num_groups": 2, "affine": False},
        [M],
        lambda: nn.GroupNorm(2, 4, affine=False),
    ),
    Row({"layer": "instance_norm", "eps": 0.1}, [T], lambda: nn.InstanceNorm1d(4, 0.1)),
    Row(
        {"layer": "local_response_norm", "size": 3, "alpha": 1, "beta": 0.5},
        [M],
        lambda: nn.LocalResponseNorm(3, 1, 0.5),
    ),
    Row(
        {"layer": "l2_normalise", "eps": 9},
        [M],
        None,
        plain(lambda m: F.normalize(m, dim=1, eps=9)),
    ),
    Row({"layer": "activation", "name": "elu", "alpha": 0.5}, [M], lambda: nn.ELU(0.5)),
    Row({"layer": "activation", "name": "softplus", "beta": 2}, [M], lambda: nn.Softplus(2)),
    Row(
        {"layer": "activation", "name": "softshrink", "lambd": 0.1}, [M], lambda: nn.Softshrink(0.1)
    ),
    Row({"layer": "max_pool", "kernel": 4, "stride": 1}, [M], lambda: nn.MaxPool2d(4, 1)),
    Row(
        {"layer": "max_pool", "kernel": 4, "ceil_mode": True},
        [M],
        lambda: nn.MaxPool2d(4, ceil_mode=True),
    ),
    Row(
        {"layer": "avg_pool", "kernel": 4, "ceil_mode": True},
        [M],
        lambda: nn.AvgPool2d(4, ceil_mode=True),
    ),
    Row({"layer": "lp_pool", "kernel": 4, "stride": 1}, [M], lambda: nn.LPPool2d(2, 4, 1)),
    Row(
        {"layer": "lp_pool", "kernel": 4, "ceil_mode": True},
        [M],
        lambda: nn.LPPool2d(2, 4, ceil_mode=True),
    ),
    Row(
        {"layer": "rnn", "hidden_size": 5, "num_layers": 2, "layer_dropout": 0.4},
        [T],
        lambda: nn.RNN(36, 5, 2, batch_first=True, dropout=0.4),
        lambda rnn, t: rnn(t)[0],
    ),
    Row(
        {"layer": "rnn", "hidden_size": 5, "bidirectional": True},
        [T],
        lambda: nn.RNN(36, 5, batch_first=True, bidirectional=True),
        lambda rnn, t: rnn(t)[0],
    ),
    Row(
        {"layer": "pairwise_distance", "p": 1},
        [V, V],
        None,
        plain(lambda a, b: F.pairwise_distance(a, b, p=1, keepdim=True)),
    ),
    Row(
        {"layer": "pairwise_distance", "eps": 0.5},
        [V, V],
        None,
        plain(lambda a, b: F.pairwise_distance(a, b, eps=0.5, keepdim=True)),
    ),
]
