"""What plan tells: shapes before and after, who reads whom, rates, costs, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graph.tiny import TINY, recipe
from tiny import make_pictures
from torch import nn

from tlcompile.compiler import compile_recipe
from tlcompile.run.cli import main
from tlcompile.run.costs import costs_of
from tlcompile.run.plan import Plan, make_plan
from tlcompile.run.plan_diff import diff_text, differences
from tlcompile.run.plan_text import plan_text
from tlcompile.run.say import show_number

SMALL = """\
base: {model: digits_net}
freeze: {upto: block1}
data: {dataset: digits, classes: ["5", "6"], per_class: 8}
fine_tune: {epochs: 2, batch_size: 8}
"""


def plan_of(base: str, **sections: Any) -> Plan:
    made = recipe(**sections)
    return make_plan(made, compile_recipe(made, base=TINY[base](), num_classes=3))


def text_of(base: str, **sections: Any) -> list[str]:
    return plan_text(recipe(**sections), plan_of(base, **sections)).splitlines()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return "small.yaml"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_changed_shape_is_shown_before_and_after() -> None:
    fc = next(line for line in text_of("chain", freeze="bn") if line.startswith("fc "))
    assert "(N, 10) → (N, 3)" in fc
    assert fc.endswith("replaced, trains")


def test_reads_are_shown_where_it_is_not_the_row_above() -> None:
    lines = text_of("branches", freeze="stem")
    start = lines[0].index("reads")
    reads = {line.split()[0]: line[start:].split("  ")[0] for line in lines[2:9]}
    assert reads["stem"] == reads["left"] == reads["classifier.1"] == ""
    assert reads["right"] == "stem"
    assert reads["cat"].startswith("left, right")


def test_part_of_a_module_has_the_name_of_its_last_vertex() -> None:
    names = [line.split("  ")[0] for line in text_of("residual", freeze="layer1.0")]
    assert "layer1" not in names
    assert {"layer1.0.relu_1", "layer1.1.relu_1"} <= set(names)
    assert "layer1" in [line.split("  ")[0] for line in text_of("residual", freeze="layer1")]


def test_a_chain_has_no_column_of_reads() -> None:
    assert "reads" not in text_of("chain", freeze="bn")[0]


def test_removed_vertices_are_named_with_their_shapes_when_full() -> None:
    made = recipe(
        freeze="relu",
        remove={"drop": "bypass", "fc": "replace"},
        add={"fc": {"layer": "linear", "out": 3, "inputs": ["flatten"]}},
    )
    plan = make_plan(made, compile_recipe(made, base=TINY["chain"](), num_classes=3))
    assert "removed     drop" in plan_text(made, plan).splitlines()
    full = plan_text(made, plan, full=True)
    assert any(
        line.split() == ["drop", "Dropout", "(N,", "32)", "flatten", "bypass", "drop"]
        for line in full.splitlines()
    )


def test_new_weights_say_by_which_init() -> None:
    sections = {
        "freeze": "pool",
        "remove": {"fc": "replace"},
        "add": {"fc": {"layer": "linear", "out": 3, "init": "xavier_normal", "inputs": ["drop"]}},
    }
    assert "new weights fc: xavier_normal" in text_of("chain", **sections)


def test_rates_have_a_row_for_what_trains() -> None:
    plan = plan_of("chain", freeze="none", fine_tune={"optimizer": {"name": "sgd", "lr": 0.5}})
    (rate,) = plan.rates
    assert (rate.trains, rate.tensors, rate.lr) == (("conv", "bn", "fc"), 6, 0.5)
    assert rate.parameters == plan.trainable
    assert plan.frozen == 0


def test_costs_follow_the_formula() -> None:
    sections: dict[str, Any] = {
        "freeze": "pool",
        "fine_tune": {"batch_size": 4, "optimizer": {"name": "adam"}},
        "features": {"batch_size": 2},
    }
    made = recipe(**sections)
    model = compile_recipe(made, base=TINY["chain"](), num_classes=3)
    costs = costs_of(made, model)
    conv, fc = 2 * 8 * 8 * 8 * 27, 2 * 32 * 3
    assert (costs.prefix_flops, costs.suffix_flops) == (conv, fc)
    assert costs.step_flops == 2 * fc  # its weights get a gradient, its input does not
    trainable = 32 * 3 + 3
    assert (costs.gradients, costs.state) == (4 * trainable, 8 * trainable)
    assert costs.weights == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert costs.activations == 4 * 4 * (32 + 3)  # drop, fc; floats; images
    assert costs.prefix == 2 * 4 * (3 * 16 * 16 + 8 * 8 * 8)  # while conv runs: input and output
    assert costs.memory == costs.weights + 12 * trainable + costs.prefix


def test_a_training_step_of_an_unfrozen_chain_is_thrice_the_forward() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Linear(4, 3))
    made = recipe(freeze="none", head="keep")
    costs = costs_of(made, compile_recipe(made, base=module, num_classes=3))
    first, second = 2 * 768 * 4, 2 * 4 * 3
    assert costs.suffix_flops == first + second
    assert costs.step_flops == 2 * first + 3 * second  # nobody needs the image's gradient


def test_bytes_of_features_for_all_images_where_they_are_at_hand(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(printed(capsys, "plan", small, "--json"))
    images = data["features"]["images"]
    assert images > 16
    assert data["features"]["bytes"] == images * data["features"]["bytes_an_image"]
    assert f"for {images} images" in printed(capsys, "plan", small)
    make_pictures(Path("photos"), side=8)
    words = ["plan", small, "~data", "data.folder=photos"]
    assert "MB for 12 images" in printed(capsys, *words) or "kB for 12 images" in printed(
        capsys, *words
    )
    assert "images" not in printed(capsys, "plan", small, "~data", "--classes", "2").split(
        "features"
    )[-1].replace("an image", "")


def test_plan_full_lists_every_vertex(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "plan", small, "--full")
    for name in ("block1.conv", "block2.relu", "block3.pool"):
        assert f"\n{name} " in told
    assert "FLOPs" in told.splitlines()[1]


def test_plans_of_two_recipes_differ_where_they_differ(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = printed(capsys, "plan", small, "freeze=stem", "fine_tune.epochs=3", "--diff", small)
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in told.splitlines()[2:]]
    assert ["recipe", "freeze.upto", "stem", "block1"] in rows
    assert ["recipe", "fine_tune.epochs", "3", "2"] in rows
    assert ["vertex", "block1 (3 vertices)", "kept", "kept, frozen"] in rows
    assert {row[0] for row in rows} == {"recipe", "vertex", "tensor", "rate", "total"}
    found = json.loads(printed(capsys, "plan", small, "freeze=stem", "--diff", small, "--json"))
    assert {"what": "recipe", "name": "freeze.upto", "this": "stem", "other": "block1"} in found
    assert sum(one["what"] == "vertex" for one in found) == 3


def test_equal_plans_have_no_difference(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "plan", small, "--diff", small) == "the two plans are equal\n"
    assert json.loads(printed(capsys, "plan", small, "--diff", small, "--json")) == []


def test_an_added_vertex_and_a_changed_tensor_are_differences() -> None:
    one, two = (
        recipe(freeze="pool"),
        recipe(
            freeze="pool",
            remove={"fc": "replace"},
            add={
                "wide": {"layer": "linear", "out": 7, "inputs": ["drop"]},
                "fc": {"layer": "linear", "out": 3, "inputs": ["wide"]},
            },
        ),
    )
    plans = [
        make_plan(r, compile_recipe(r, base=TINY["chain"](), num_classes=3)) for r in (one, two)
    ]
    found = {(d.what, d.name): d for d in differences((one, plans[0]), (two, plans[1]))}
    assert (found["vertex", "wide"].this, found["vertex", "wide"].other) == ("-", "added, default")
    assert found["tensor", "fc.weight"].this.startswith("3x32 replaced")
    assert found["tensor", "fc.weight"].other.startswith("3x7 replaced")
    assert ("vertex", "conv") not in found
    assert "wide (2 tensors)" in diff_text(list(found.values()))


def test_numbers_are_shown_in_three_digits() -> None:
    shown = [show_number(n) for n in (0, 7, 999, 999.6, 1000, 1.8249e9, 12_345, 999_600)]
    assert shown == ["0", "7", "999", "1 k", "1 k", "1.82 G", "12.3 k", "1 M"]


def test_lines_under_the_tables_stay_within_the_width() -> None:
    lines = text_of("chain", freeze="none", fine_tune={"optimizer": {"name": "adamw"}})
    end = next(i for i, line in enumerate(lines) if line.startswith("new weights"))
    assert len(lines[end:]) >= 5
    assert max(map(len, lines[end:])) <= 100


def test_units_follow_their_prefix() -> None:
    assert show_number(900, "FLOPs") == "900 FLOPs"
    assert show_number(2_400_000, "FLOPs") == "2.4 MFLOPs"
