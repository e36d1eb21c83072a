"""Pain points of several devices, as they were reported of other tools; the right behaviour here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch.nn.parallel import DistributedDataParallel

from tlcompile.compiler import compile_recipe
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.sent import to_plain
from tlcompile.run import launch
from tlcompile.run.folder import recipe_digest, run_folder
from tlcompile.run.launch import Job
from tlcompile.training.ranks import Ranks

RECIPE = "base: {model: digits_net}\ndata: {dataset: digits}\n"


def test_ranks_get_a_plan_and_never_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15, Lightning 11300, 2086, 5512: children got the parent's argv, `-m a=1,2` among it, and each
    of them began a sweep of its own; lightning-hydra-template 226, 393: several output folders.
    """
    from torch.distributed.launcher import api

    started: list[tuple[str, ...]] = []

    class Launcher:
        def __init__(self, config: object, entrypoint: str) -> None:
            del config, entrypoint

        def __call__(self, *words: str) -> None:
            started.append(words)
            plan = json.loads(Path(words[-1]).read_bytes())
            assert plan["folder"] == str(tmp_path / "run")
            assert plan["recipe"] == to_plain(recipe)

    recipe = make_recipe(run={"devices": 2})
    monkeypatch.setattr(api, "elastic_launch", Launcher)
    monkeypatch.setattr(launch, "read_record", lambda folder: {"state": "finished"})
    monkeypatch.setattr("sys.argv", ["tlcompile", "train", "a.yaml", "-m", "fine_tune.seed=1,2"])
    launch.launch_ranks(Job(recipe, tmp_path / "run", {}), 2)
    ((*words, plan),) = started
    assert words == ["-P", "-m", "tlcompile.run.ranks"]
    assert not Path(plan).exists(), "what crossed is gone"


def test_a_run_finds_its_folder_again_whatever_the_time_and_the_devices(tmp_path: Path) -> None:
    """18, lightning-hydra-template 146: a requeued job made a new folder, named by the clock, and
    found no checkpoint.
    """
    (tmp_path / "a.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "a.yaml")
    here = run_folder(recipe)
    assert here == Path("runs") / f"a-{recipe_digest(recipe)}", "no clock in it"
    assert run_folder(load_recipe(tmp_path / "a.yaml", ["run.devices=4", "run.device=cpu"])) == here


def test_only_what_learns_is_given_to_ddp_and_it_searches_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """23, Lightning 17212, Determined 9814: frozen or unused parameters made DDP wait for gradients
    that never came; `find_unused_parameters=True` hid wiring bugs (BioNeMo KERMT 23).
    """
    given: dict[str, object] = {}
    monkeypatch.setattr(
        DistributedDataParallel,
        "__init__",
        lambda self, module, **options: given.update(options, module=module) or None,
    )
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze="bn2")
    model = compile_recipe(recipe, TinyNet(), num_classes=2)
    Ranks(0, 2).wrap(model.suffix_module())
    assert "find_unused_parameters" not in given
    module = given["module"]
    assert isinstance(module, torch.nn.Module)
    wanted = {name for name, p in module.named_parameters() if p.requires_grad}
    assert wanted == {name for name, _ in model.trainable()}
    model.suffix(*model.prefix(torch.randn(2, 3, 8, 8))).sum().backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
