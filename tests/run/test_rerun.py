"""T13, the same command again: an unfinished run goes on, a finished one says so, and the flags."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from reliability.training_runs import differences, ending

from tlcompile.errors.resume import RunBusyError
from tlcompile.run import fingerprint
from tlcompile.run.cli import main
from tlcompile.run.folder import METRICS, find_generation, only_here
from tlcompile.training.step import Step

DIGITS = """\
base: {model: digits_net}
freeze: {upto: block1}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 8}
fine_tune: {epochs: 3, batch_size: 8}
run: {workers: 0}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(DIGITS)
    return tmp_path


def stop(*words: str, step: int = 5, number: int = signal.SIGTERM) -> int:
    """Train until a signal comes while a step runs; return the exit code."""
    calls = 0
    call = Step.__call__

    def counted(self: Step, *rest: object) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), number)
        call(self, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", counted)
        return main(["train", "r.yaml", *words])


def train(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    found = main(["train", "r.yaml", *words])
    told = capsys.readouterr()
    assert found == code, told.err
    return told.err if code else told.out


def folders() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


def test_a_job_that_is_queued_again_finds_itself(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop(number=signal.SIGUSR1) == 75
    (name,) = folders()
    assert f"resumed     epoch 2, step 3 (runs/{name})" in train(capsys)
    assert folders() == [name]
    train(capsys, f"run.output_dir={here / 'whole'}")
    (whole,) = (here / "whole").iterdir()
    assert differences(ending(Path("runs") / name), ending(whole)) == []
    assert "is finished: epoch" in train(capsys)


def test_flags_are_harmless_on_a_fresh_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "results" in train(capsys, "--resume", "--inexact")


def test_again_trains_a_finished_run_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    train(capsys, "--again")
    (name,) = folders()
    train(capsys, "--again")
    train(capsys, "--again")
    assert folders() == [name, f"{name}-2", f"{name}-3"]
    assert f"runs/{name}-3 is finished" in train(capsys), "the newest one speaks"


def test_again_goes_on_with_an_unfinished_run(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a job whose command has --again finds itself when it is queued again."""
    train(capsys)
    assert stop("--again") == 143
    assert "resumed" in train(capsys, "--again")
    (name, second) = folders()
    assert second == f"{name}-2"


def damage() -> None:
    for path in Path("runs").glob("*/checkpoints/0*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])


def test_a_run_whose_checkpoints_are_damaged_starts_over_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop()
    damage()
    told = train(capsys)
    assert "checkpoint  0" in told
    assert " put aside, to " in told
    assert "holds an unfinished run, no checkpoint: it starts over" in told


def test_with_resume_it_never_starts_over(capsys: pytest.CaptureFixture[str]) -> None:
    stop("--resume")
    damage()
    (name,) = folders()
    before = (Path("runs") / name / METRICS).read_bytes()
    for _ in range(2):
        assert "[checkpoints-lost]" in train(capsys, "--resume", code=74)
    assert (Path("runs") / name / METRICS).read_bytes() == before


def another_machine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fingerprint, "decoder", lambda: {"pillow": "0.0"})


def test_another_machine_is_refused_with_the_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    another_machine(monkeypatch)
    told = train(capsys, code=1)
    assert "[other-run]" in told
    assert "decoder pillow: " in told
    assert "now 0.0" in told
    assert "--inexact" in told


def test_inexact_goes_on_there_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    another_machine(monkeypatch)
    told = train(capsys, "--inexact")
    assert "inexact     " in told
    assert "resumed" in told


def test_again_begins_beside_a_run_that_cannot_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    another_machine(monkeypatch)
    assert "begins beside it" in train(capsys, "--again")
    assert len(folders()) == 2


def test_a_point_of_a_sweep_that_was_stopped_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    points = ("-m", "fine_tune.seed=1,2")
    assert stop(*points, step=12) == 143, "the second point"
    told = train(capsys, *points)
    assert told.count("finished before: ") == 1
    assert told.count("resumed") == 1


def test_the_newest_generation_is_found(here: Path) -> None:
    for name in ("a", "a-2", "a-3"):
        Path(name).mkdir()
    assert find_generation(Path("a"), again=False) == (Path("a-3"), None)
    Path("a-3/record.json").write_text('{"state": "finished"}')
    assert find_generation(Path("a"), again=False) == (Path("a-3"), {"state": "finished"})
    assert find_generation(Path("a"), again=True) == (Path("a-4"), None)
    assert find_generation(Path("b"), again=True) == (Path("b"), None)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    with only_here(tmp_path), pytest.raises(RunBusyError) as caught, only_here(tmp_path):
        pytest.fail("two at once")
    assert caught.value.path == tmp_path
    assert not (tmp_path / "lock").exists(), "the lock goes with who holds it"
    with only_here(tmp_path):
        assert (tmp_path / "lock").exists()
