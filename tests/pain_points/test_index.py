"""Which test states the right behaviour for each thing that users of other tools met in training."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# Its number among the pain points, a thread that is cited, the test that cites it.
INDEX = [
    (2, "86590", "training/test_proof.py::test_each_phase_has_its_proof"),
    (4, "21901", "pain_points/test_groups.py::test_which_phase_trains_what_is_told_by_the_recipe_alone"),
    (5, "6891", ("pain_points/test_groups.py::"
     "test_saved_state_finds_its_parameter_whatever_the_order_of_groups")),
    (6, "79888", "pain_points/test_groups.py::test_a_layer_that_thaws_late_follows_the_schedule"),
    (6, "12141", "pain_points/test_groups.py::test_a_plateau_counts_from_the_start_of_its_phase"),
    (7, "489", "pain_points/test_groups.py::test_tensors_of_equal_values_are_both_in_an_optimizer"),
    (8, "1213", "pain_points/test_groups.py::test_a_layer_that_is_frozen_again_does_not_move"),
    (10, "31841", "reliability/test_numbers.py::test_a_fresh_head_that_is_far_too_large_is_warned_of"),
    (15, "11300", "pain_points/test_devices.py::test_ranks_get_a_plan_and_never_the_command_line"),
    (18, "146", ("pain_points/test_devices.py::"
     "test_a_run_finds_its_folder_again_whatever_the_time_and_the_devices")),
    (19, "46628", "pain_points/test_augmentation.py::test_batches_that_a_resume_skips_draw_nothing"),
    (19, "18780", "pain_points/test_data.py::test_split_is_the_same_whatever_was_drawn_before"),
    (20, "19999", "pain_points/test_data.py::test_all_bad_rows_of_a_table_are_told_with_their_place"),
    (22, "2892", "run/test_find_rate.py::test_nothing_of_the_caller_is_changed"),
    (23, "17212", ("pain_points/test_devices.py::"
     "test_only_what_learns_is_given_to_ddp_and_it_searches_for_nothing")),
    (24, "119", "pain_points/test_metrics.py::test_the_best_epoch_is_best_in_the_direction_of_its_metric"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "thread", "node"), INDEX)
def test_a_pain_point_has_a_test_that_cites_its_thread(number: int, thread: str, node: str) -> None:
    path, _, name = node.partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    (test,) = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == name]
    assert thread in (ast.get_docstring(test) or ""), number


def test_none_is_left_out() -> None:
    assert {number for number, *_ in INDEX} == {2, *range(4, 9), 10, 15, 18, 19, 20, 22, 23, 24}
