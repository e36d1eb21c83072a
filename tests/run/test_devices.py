"""What the plan says of several devices."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import make_recipe

from tlcompile.run.devices import device_notes


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"data": {"mix": {"mixup": 0.2}}}, "data.mix"),
        ({"features": {"augment": {"noise": 0.1}}}, "features.augment"),
    ],
)
def test_what_each_device_draws_for_itself_is_named(sections: dict[str, Any], name: str) -> None:
    notes = device_notes(make_recipe(run={"devices": 2}, **sections), [])
    assert any(note.startswith(f"{name} draw by (seed, step, device)") for note in notes)
    plain = device_notes(make_recipe(run={"devices": 2}), [])
    assert plain
    assert not any("draw by" in note for note in plain)
    assert not device_notes(make_recipe(**sections), [])
