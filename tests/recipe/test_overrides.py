"""What an override may look like, and what it does to a recipe."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.recipe import OverrideKeyError, OverrideSyntaxError, RecipeError
from tlcompile.recipe.flow import FlowReader, to_flow
from tlcompile.recipe.nodes import NOWHERE, locate
from tlcompile.recipe.overrides import apply_override, is_sweep, parse_override, split_arguments
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.yaml_reader import read_recipe_text

RECIPE = """
base: {model: vgg16, weights: DEFAULT}
freeze: {upto: classifier.5}
remove: {classifier.6: replace, '3': drop, '1.10': drop}
resize: {classifier.3: {out: 512}, layer4: {out: 8}}
add:
  classifier.6: {layer: linear, out: 5, inputs: classifier.5}
fine_tune:
  optimizer: {name: sgd, lr: 0.01, momentum: 0.9}
  phases: [{name: head, epochs: 3}, {name: all, lr: 1e-4}]
outputs: [a, b]
data:
"""


def apply(*texts):
    root = read_recipe_text(RECIPE, "r.yaml")
    before = to_data(root)
    tree = root
    for text in texts:
        tree = apply_override(tree, parse_override(text))
    assert to_data(root) == before  # the old tree is never changed
    return to_data(tree)


def values(text):
    return [to_data(value) for value in parse_override(text).values]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("freeze.upto=layer3", "freeze.upto", ["layer3"]),
        ("+a.b=1", "a.b", [1]),
        ("++a.b=1", "a.b", [1]),
        ("resize[classifier.3].out=512", "resize[classifier.3].out", [512]),
        ("output_dir=/tmp/x", "run.output_dir", ["/tmp/x"]),
        ("a=1e-3,1e-4", "a", [1e-3, 1e-4]),
        ("a=choice(x, [y, z])", "a", ["x", ["y", "z"]]),
        ("a=[a, 'b, c', \"d\\u00e4\"]", "a", [["a", "b, c", "dä"]]),
        ("a={name:adamw,lr:1e-3,c.3: {}}", "a", [{"name": "adamw", "lr": 1e-3, "c.3": {}}]),
        ("a={'b: c': [[]], d: }", "a", [{"b: c": [[]], "d": None}]),
        ("a=", "a", [None]),
        ("a=''", "a", [""]),
        ("a='it''s'", "a", ["it's"]),
        ("a=x=y", "a", ["x=y"]),
        ("a= x y ", "a", ["x y"]),
        ("a=no,010,'010'", "a", ["no", 10, "010"]),
        ("a=*.jpg", "a", ["*.jpg"]),
        ("a=lambda: 0", "a", ["lambda: 0"]),
        ("a[b=c].d=1", "a[b=c].d", [1]),
    ],
)
def test_parse(text, key, expected):
    override = parse_override(text)
    assert (override.key, override.delete) == (key, False)
    assert values(text) == expected
    assert is_sweep(override) == (len(expected) > 1)


def test_parse_deletion_and_functions():
    deletion = parse_override("~remove.classifier.6")
    assert (deletion.delete, deletion.key, deletion.values) == (True, "remove.classifier.6", ())
    for text in ("range(1, 5)", "range(5)", "range(0,1,0.25)", "interval(1e-4, 1e-1)"):
        override = parse_override(f"lr={text}")
        assert (override.function, override.values) == (text, ())
        assert is_sweep(override)


REFUSED = [
    ("a", 1, "override-syntax"),
    ("recipe.yaml", 1, "override-syntax"),
    ("-x=1", 1, "override-syntax"),
    ("--multirn", 1, "override-syntax"),
    ("~a=1", 1, "override-syntax"),
    ("=1", 1, "override-syntax"),
    ("a..b=1", 1, "override-syntax"),
    ("a.=1", 1, "override-syntax"),
    ("a[b=1", 1, "override-syntax"),
    ("a[]=1", 1, "override-syntax"),
    ("a[b]c=1", 1, "override-syntax"),
    ("a=1,,2", 5, "override-syntax"),
    ("a=1,", 5, "override-syntax"),
    ("a=[1,,2]", 6, "override-syntax"),
    ("a=[1", 5, "override-syntax"),
    ("a=x]", 4, "override-syntax"),
    ("a={b}", 5, "override-syntax"),
    ("a={b:1,b:2}", 8, "override-syntax"),
    ("a={:1}", 4, "recipe-syntax"),
    ("a='x", 3, "override-syntax"),
    ("a='x'y", 6, "override-syntax"),
    ('a="\\q"', 3, "override-syntax"),
    ("a=glob(*)", 3, "override-syntax"),
    ("a=chioce(1,2)", 3, "override-syntax"),
    ("a=choice(1,2", 3, "override-syntax"),
    ("a=choice()", 3, "override-syntax"),
    ("a=range(5,1)", 3, "override-syntax"),
    ("a=range(1,5,0)", 3, "override-syntax"),
    ("a=range(a,b)", 3, "override-syntax"),
    ("a=range(010,020)", 3, "override-syntax"),
    ("a=range(0,1e9)", 3, "recipe-too-big"),
    ("a=interval(2,1)", 3, "override-syntax"),
    ("++hydra=1", 3, "not-overridable"),
    ("hydrax.a=1", 1, "not-overridable"),
    ("a._target_=os.system", 1, "not-overridable"),
    ("a=[{_partial_: true}]", 5, "not-overridable"),
    ("a=${oc.env:HOME}", 3, "forbidden-yaml"),
    ('a="\\u0024{x}"', 3, "forbidden-yaml"),
    ("a\u202e=1", 1, "forbidden-character"),
    ("a=\udc80", 3, "forbidden-character"),
    ('a="\\u0000"', 3, "forbidden-character"),
    ("a=" + "[" * 2000, 3 + 64, "recipe-too-big"),
    (".".join("a" * 2000) + "=1", 1, "recipe-too-big"),
    ("a" * 500 + "=1", 1, "recipe-too-big"),
]


@pytest.mark.parametrize(("text", "column", "slug"), REFUSED)
def test_refused_at_its_place(text, column, slug):
    with pytest.raises(RecipeError) as caught:
        parse_override(text, 1)
    error = caught.value
    assert (str(error.where), error.slug) == (f"command line:1:{column}", slug)
    assert "fix" in str(error)


def read(text):
    try:
        return parse_override(text)
    except TLCompileError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab.=[]{},:'\"\\~+-$()\0 19\n"), max_size=25))
def test_any_text_is_read_or_refused_with_a_place(text):
    for argument in (text, f"a={text}"):
        found = read(argument)
        if isinstance(found, TLCompileError):
            assert found.where
            assert str(found)
        else:
            for value in found.values:
                assert FlowReader(to_flow(value), 0, NOWHERE).one() == value


def test_split_arguments():
    argv = [
        "-m",
        "a=1",
        "hydra.sweep.dir=x",
        "++hydra.job.chdir=true",
        "hydra/launcher=joblib",
        "b=2",
    ]
    overrides, for_hydra, flags = split_arguments(argv)
    assert [override.text for override in overrides] == ["a=1", "b=2"]
    assert for_hydra == argv[2:5]
    assert flags == ["-m"]
    line = " ".join(argv)
    for override in overrides:
        assert line[override.span_of_key.column - 1 :].startswith(override.text)
        assert line[override.span_of_value.column - 1 :].startswith(override.text[2:])


def test_split_arguments_reports_all():
    with pytest.raises(Problems) as caught:
        split_arguments(["--multirn", "a=[1", "ok=1", "b"])
    places = [(error.where.column, error.slug) for error in caught.value.errors]
    assert places == [(1, "override-syntax"), (15, "override-syntax"), (21, "override-syntax")]
    assert "did you mean '--multirun'?" in str(caught.value)


def test_names_with_dots_are_found_without_brackets():
    assert apply("add.classifier.6.out=7")["add"]["classifier.6"]["out"] == 7
    assert apply("resize.classifier.3.out=7")["resize"]["classifier.3"] == {"out": 7}
    assert apply("resize[classifier.3].out=7")["resize"]["classifier.3"] == {"out": 7}
    assert apply("remove.1.10=bypass")["remove"]["1.10"] == "bypass"
    assert apply("~remove.classifier.6")["remove"] == {"3": "drop", "1.10": "drop"}
    assert apply("~add.classifier.6.inputs")["add"]["classifier.6"] == {"layer": "linear", "out": 5}


def test_the_longest_existing_name_wins():
    setup = "resize={layer1: {out: 1}, layer1.conv: {out: 2}}"
    resize = apply(setup, "resize.layer1.conv.out=3", "resize.layer1.out=4")["resize"]
    assert (resize["layer1.conv"], resize["layer1"]) == ({"out": 3}, {"out": 4})
    assert "layer1" in apply(setup, "~resize.layer1.conv")["resize"]


def test_new_names_with_dots():
    assert apply("remove.classifier.7=drop")["remove"]["classifier.7"] == "drop"
    assert apply("remove.3.conv=drop")["remove"]["3.conv"] == "drop"
    assert apply("resize.layer1.0.conv1.out=8")["resize"]["layer1.0.conv1"] == {"out": 8}
    assert apply("resize.layer4.1.conv1.out=8")["resize"]["layer4.1.conv1"] == {"out": 8}
    assert apply("resize.features.0={out: 8}")["resize"]["features.0"] == {"out": 8}
    new = apply("add.neck.fc={layer: linear}", "add.neck.fc.out=7", "add.x.out=1")["add"]
    assert new["neck.fc"] == {"layer": "linear", "out": 7}
    assert new["x"] == {"out": 1}
    assert apply("add.fc3.optimizer={lr: 1}")["add"]["fc3"] == {"optimizer": {"lr": 1}}
    assert apply("add[a.b].optimizer.lr=1")["add"]["a.b"] == {"optimizer": {"lr": 1}}


def test_a_mapping_with_its_tag_replaces_and_any_other_merges():
    def optimizer(text):
        return apply(f"fine_tune.optimizer={text}")["fine_tune"]["optimizer"]

    assert optimizer("{name: adamw, lr: 1e-3}") == {"name": "adamw", "lr": 1e-3}
    assert optimizer("{lr: 1e-3}") == {"name": "sgd", "lr": 1e-3, "momentum": 0.9}
    assert optimizer("{}") == {}
    assert apply("base={run: runs/x}")["base"] == {"run": "runs/x"}
    assert apply("base={weights: none}")["base"] == {"model": "vgg16", "weights": "none"}
    replaced = apply("add={classifier.6: {layer: dropout, p: 0.5}}")["add"]
    assert replaced == {"classifier.6": {"layer": "dropout", "p": 0.5}}
    merged = apply("add={classifier.6: {out: 9}, fc: {layer: linear}}")["add"]
    assert merged["classifier.6"]["out"] == 9
    assert merged["classifier.6"]["layer"] == "linear"
    assert merged["fc"] == {"layer": "linear"}
    deep = apply("fine_tune={optimizer: {name: adam}, epochs: 2}")["fine_tune"]
    assert deep["optimizer"] == {"name": "adam"}
    assert deep["epochs"] == 2


def test_scalars_lists_and_nulls():
    assert apply("outputs=[c]")["outputs"] == ["c"]
    assert apply("outputs.1=z")["outputs"] == ["a", "z"]
    assert apply("~outputs.0")["outputs"] == ["b"]
    phases = apply("fine_tune.phases.1.lr=2", "~fine_tune.phases.0.epochs")["fine_tune"]["phases"]
    assert phases == [{"name": "head"}, {"name": "all", "lr": 2}]
    assert apply("data.folder=flowers")["data"] == {"folder": "flowers"}
    assert apply("run.a.b=1")["run"] == {"a": {"b": 1}}
    assert apply("freeze=head", "~freeze").get("freeze") is None


@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("~remove.clasifier.6", "'remove' has no key 'clasifier.6'"),
        ("~freez", "the recipe has no key 'freez'"),
        ("fine_tune.phases.2.lr=1", "'fine_tune.phases' is a list and has no item '2'"),
        ("fine_tune.phases.x=1", "'fine_tune.phases' is a list and has no item 'x'"),
        ("fine_tune.phases.²=1", "'fine_tune.phases' is a list and has no item '²'"),
        ("~fine_tune.phases.9", "'fine_tune.phases' is a list and has no item '9'"),
        ("base.model.x=1", "'base.model' is a value and has no key 'x'"),
        ("~base.model.x", "'base.model' is a value and has no key 'x'"),
    ],
)
def test_places_that_are_not_there(text, headline):
    with pytest.raises(OverrideKeyError) as caught:
        apply(text)
    assert caught.value.headline() == headline
    assert caught.value.where == parse_override(text).span_of_key


def test_the_nearest_key_is_named():
    with pytest.raises(OverrideKeyError, match=r"did you mean 'classifier\.6'"):
        apply("~remove.clasifier.6")


def test_a_sweep_is_not_one_recipe():
    with pytest.raises(OverrideSyntaxError, match="run the sweep with -m"):
        apply("freeze.upto=a,b")


def test_places_of_overridden_values_are_on_the_command_line():
    root = read_recipe_text(RECIPE, "r.yaml")
    tree = apply_override(root, parse_override("fine_tune.optimizer={lr: 2}", column=11))
    where = {key: str(locate(tree, ("fine_tune", "optimizer", key))) for key in ("lr", "momentum")}
    assert where == {"lr": "command line:1:36", "momentum": "r.yaml:9:46"}
    key = locate(tree, ("fine_tune", "optimizer", "lr"), want_key=True)
    assert str(key) == "command line:1:32"


def test_depth_and_big_lists_need_no_recursion():
    tree = read_recipe_text(RECIPE, "r.yaml")
    deep = ".".join("a" * 64)
    nested = "{b: " * 64 + "1" + "}" * 64
    assert to_data(apply_override(tree, parse_override(f"{deep}={nested}")))


def test_inputs_and_groups_have_names_with_dots_and_fields_behind_them() -> None:
    assert apply("inputs.meta.shape=[4]")["inputs"] == {"meta": {"shape": [4]}}
    assert apply("inputs.meta={shape: [4]}")["inputs"] == {"meta": {"shape": [4]}}
    assert apply("inputs.a.b.shape=[4]", "inputs.a.b.dtype=bool")["inputs"] == {
        "a.b": {"shape": [4], "dtype": "bool"}
    }
    tune = apply("fine_tune.groups.classifier.1.lr=1e-3")["fine_tune"]
    assert tune["groups"] == {"classifier.1": {"lr": 1e-3}}
    tune = apply("fine_tune.groups={classifier: {lr: 1}}", "fine_tune.groups.classifier.1.lr=2")
    assert tune["fine_tune"]["groups"] == {"classifier": {"lr": 1}, "classifier.1": {"lr": 2}}
    tune = apply("fine_tune.groups.layer4.0.optimizer.lr=1", "fine_tune.groups.fc={lr: 2}")
    assert tune["fine_tune"]["groups"] == {
        "layer4.0": {"optimizer": {"lr": 1}}, "fc": {"lr": 2}
    }  # fmt: skip
    phase = apply("fine_tune.phases.1.groups.features.3.lr=2")["fine_tune"]["phases"][1]
    assert phase["groups"] == {"features.3": {"lr": 2}}
