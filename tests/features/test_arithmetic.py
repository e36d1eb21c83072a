"""What of the machine and its libraries is in a key, for each precision."""

from __future__ import annotations

import torch

from tlcompile.features.arithmetic import arithmetic, decoder, processor, resizer

CPU = torch.device("cpu")


def test_exact_says_all_that_decides_a_bit() -> None:
    found = arithmetic("exact", 8, CPU)
    assert (found["chunk"], found["torch"]) == (8, torch.__version__)
    assert found["device"] == {
        "type": "cpu",
        "threads": torch.get_num_threads(),
        "processor": processor(),
    }


def test_the_others_say_what_decides_more_than_a_tolerance() -> None:
    for word in ("fp32-fused", "fast"):
        found = arithmetic(word, 8, CPU)
        assert found == arithmetic(word, 16, CPU)
        assert sorted(found) == ["device", "precision", "torch", "version"]
        assert torch.__version__.startswith(f"{found['torch']}.")


def test_the_processor_is_told_without_what_changes_while_it_runs() -> None:
    processor.cache_clear()
    first = processor()
    processor.cache_clear()
    assert processor() == first
    assert not any("MHz" in name or "bogomips" in name for name in first)


def test_one_build_of_torchvision_is_as_good_as_another() -> None:
    assert "+" not in decoder()["torchvision"]
    assert resizer()["torch"] == torch.__version__
