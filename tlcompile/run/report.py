"""Write one self-contained HTML page of a run or of a sweep: it needs no network and no server."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.finding import AmbiguousRunError
from tlcompile.errors.recipe import CommandLineError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.finished import find_run
from tlcompile.report.pages import SweepData
from tlcompile.report.run_page import run_page, run_text
from tlcompile.report.sweep_charts import charts_svg
from tlcompile.report.sweep_page import sweep_page, sweep_text
from tlcompile.run.picture import write_page
from tlcompile.run.report_advice import advice_of
from tlcompile.run.report_run import run_data
from tlcompile.run.report_sweep import MANIFEST, Prove, prove, sweep_data
from tlcompile.run.say import say

PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", help="of a run or of a sweep, or a unique prefix of its name")
    parser.add_argument("--out", metavar="FILE.html", help="default: report.html in the folder")
    parser.add_argument(
        "--svg", metavar="FILE.svg", help="of a sweep: only its charts, as a picture"
    )
    parser.add_argument(
        "--advice",
        metavar="FILE.json",
        help="of a sweep: say how good this ranking was (advise --json)",
    )
    parser.add_argument("--text", action="store_true", help="print it in short; write nothing")
    parser.add_argument(
        "--no-images", action="store_true", help="of a run: predict no image again, and show none"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Write the page, or print it in short."""
    folder = find_folder(options.folder)
    _refuse_idle(options, sweep=is_sweep(folder))
    if is_sweep(folder):
        _report_sweep(folder, options)
    elif options.text:
        say(run_text(run_data(folder, images=False)))
    else:
        images = not options.no_images
        path = write_run_report(folder, options.out, images=images, workers=options.workers)
        say(f"page        {path}")
    return 0


def _refuse_idle(options: argparse.Namespace, *, sweep: bool) -> None:
    """Refuse an option that would change nothing."""
    idle = (
        (sweep and options.no_images, "--no-images", "a sweep's page has no images"),
        (not sweep and options.svg, "--svg", "it is about a sweep's charts"),
        (not sweep and options.advice, "--advice", "it is about a sweep's points"),
        (options.text and options.no_images, "--no-images", "--text has no images"),
        (options.text and options.svg, "--svg", "--text writes nothing"),
        (options.text and options.out, "--out", "--text writes nothing"),
        (options.svg and options.out, "--out", "--svg names the file"),
        (options.svg and options.advice, "--advice", "--svg has the charts alone"),
    )
    for given, flag, why in idle:
        if given:
            problem = f"{flag} has no effect here: {why}"
            raise CommandLineError(problem=problem, help="tlcompile report --help", word=flag)


def _report_sweep(folder: Path, options: argparse.Namespace) -> None:
    if options.text:
        say(sweep_text(_sweep(folder, options.advice)))
    elif options.svg:
        write_page(Path(options.svg), charts_svg(sweep_data(folder)), "--svg")
        say(f"picture     {options.svg}")
    else:
        say(f"page        {write_sweep_report(folder, options.out, advice=options.advice)}")


def _sweep(folder: Path, advice: str | None, proved: Prove = prove) -> SweepData:
    data = sweep_data(folder, proved)
    return replace(data, advice=advice_of(advice, data)) if advice else data


def write_run_report(
    folder: Path,
    out: str | None = None,
    *,
    images: bool = True,
    workers: int = 2,
    models: Sequence[CompiledModel] = (),
) -> Path:
    """Write the page of a finished run, and return where it is.

    Args:
        folder: The run's.
        out: Where; default: report.html in the folder.
        images: Whether validation images are predicted again, to show those that are wrong.
        workers: Threads that decode images.
        models: Of each phase, where they are at hand; else the recipe is compiled again.

    Raises:
        RunError: It is no finished run, or the page cannot be written.
    """
    path = Path(out) if out else folder / PAGE
    data = run_data(folder, images=images, workers=workers, models=models)
    write_page(path, run_page(data), "--out")
    return path


def page_line(folder: Path, models: Sequence[CompiledModel]) -> str:
    """Write the page of a run that has just ended, without its images; say where it is."""
    more = f"tlcompile report {shlex.quote(str(folder))}"
    try:
        path = write_run_report(folder, images=False, models=models)
    except TLCompileError as error:  # the run is whole without it
        return f"page        not written: {error.headline()} ({more})"
    return f"page        {path}; with the images that it gets wrong: {more}"


def write_sweep_report(
    folder: Path, out: str | None = None, *, advice: str | None = None, proved: Prove = prove
) -> Path:
    """Write the page of a sweep, finished or not, and return where it is.

    Args:
        folder: The one with manifest.csv.
        out: Where; default: report.html in the folder.
        advice: A file with what `advise --json` printed: how good it was is said, too.
        proved: Compiles a point's recipe on meta, or has done so before.

    Raises:
        RunError: The page cannot be written.
        CommandLineError: `advice` is none, or about other points.
    """
    path = Path(out) if out else folder / PAGE
    write_page(path, sweep_page(_sweep(folder, advice, proved)), "--out")
    return path


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder is a sweep's."""
    return (folder / MANIFEST).is_file()


def find_folder(name: str) -> Path:
    """Return the folder of a run or of a sweep.

    Raises:
        UnknownRunError: Nothing has this name.
        AmbiguousRunError: Several do.
    """
    path = Path(name)
    if path.is_dir():
        return path
    above = path.parent if path.parent != Path() else Path("sweeps")
    sweeps = sorted(found for found in above.glob("*") if is_sweep(found))
    near = [found for found in sweeps if found.name.startswith(path.name)]
    exact = [found for found in near if found.name == path.name] or near
    if len(exact) > 1:
        raise AmbiguousRunError(name=name, runs=tuple(map(str, exact)))
    return exact[0] if exact else find_run(name)
