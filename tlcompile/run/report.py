"""Write one self-contained HTML page of a run or of a sweep: it needs no network and no server."""

from __future__ import annotations

import argparse
from pathlib import Path

from tlcompile.errors.finding import AmbiguousRunError
from tlcompile.errors.recipe import CommandLineError
from tlcompile.recipe.finished import find_run
from tlcompile.report.run_page import run_page, run_text
from tlcompile.report.sweep_charts import charts_svg
from tlcompile.report.sweep_page import sweep_page, sweep_text
from tlcompile.run.picture import write_page
from tlcompile.run.report_run import run_data
from tlcompile.run.report_sweep import MANIFEST, sweep_data
from tlcompile.run.say import say

PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", help="of a run or of a sweep, or a unique prefix of its name")
    parser.add_argument("--out", metavar="FILE.html", help="default: report.html in the folder")
    parser.add_argument(
        "--svg", metavar="FILE.svg", help="of a sweep: only its charts, as a picture"
    )
    parser.add_argument("--text", action="store_true", help="print it in short; write nothing")
    parser.add_argument(
        "--no-images", action="store_true", help="of a run: predict no image again, and show none"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Write the page, or print it in short."""
    folder = find_folder(options.folder)
    if is_sweep(folder):
        _refuse(options.no_images, "--no-images", "a sweep's page has no images")
        _report_sweep(folder, options)
        return 0
    _refuse(options.svg, "--svg", "a run's page is no picture of charts")
    images = not (options.no_images or options.text)
    if options.text:
        say(run_text(run_data(folder, images=False)))
        return 0
    say(
        f"page        {write_run_report(folder, options.out, images=images, workers=options.workers)}"
    )
    return 0


def _report_sweep(folder: Path, options: argparse.Namespace) -> None:
    if options.text:
        say(sweep_text(sweep_data(folder)))
        return
    if options.svg:
        data = sweep_data(folder)
        write_page(Path(options.svg), charts_svg(data), "--svg")
        say(f"picture     {options.svg}")
        return
    say(f"page        {write_sweep_report(folder, options.out)}")


def _refuse(given: object, flag: str, why: str) -> None:
    if given:
        problem = f"{flag} has no effect here: {why}"
        raise CommandLineError(problem=problem, help="tlcompile report --help", word=flag)


def write_run_report(
    folder: Path, out: str | None = None, *, images: bool = True, workers: int = 2
) -> Path:
    """Write the page of a finished run, and return where it is.

    Args:
        folder: The run's.
        out: Where; default: report.html in the folder.
        images: Whether validation images are predicted again, to show those that are wrong.
        workers: Threads that decode images.

    Raises:
        RunError: It is no finished run, or the page cannot be written.
    """
    path = Path(out) if out else folder / PAGE
    write_page(path, run_page(run_data(folder, images=images, workers=workers)), "--out")
    return path


def write_sweep_report(folder: Path, out: str | None = None) -> Path:
    """Write the page of a sweep, finished or not, and return where it is.

    Args:
        folder: The one with manifest.csv.
        out: Where; default: report.html in the folder.

    Raises:
        RunError: The page cannot be written.
    """
    path = Path(out) if out else folder / PAGE
    write_page(path, sweep_page(sweep_data(folder)), "--out")
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
