"""Write the picture of a plan: the graph of every phase, as one HTML page."""

from __future__ import annotations

from pathlib import Path

from tlcompile.durable import write_file
from tlcompile.errors.finding import FileExistsAlreadyError
from tlcompile.report.graph_page import GENERATOR, graph_figure, page_of
from tlcompile.run.prove import Proof


def write_picture(path: Path, proof: Proof) -> None:
    """Write the page; what is no page of ours is never overwritten.

    Raises:
        FileExistsAlreadyError: Something else stands there.
        RunError: It cannot be written.
    """
    write_page(path, page_of(proof.recipe.name, _figures(proof)), "--html")


def write_page(path: Path, page: str, flag: str) -> None:
    """Write a page of ours; what is none is never overwritten.

    Raises:
        FileExistsAlreadyError: Something else stands there; `flag` names another place.
        RunError: It cannot be written.
    """
    if path.exists() and not _is_ours(path):
        raise FileExistsAlreadyError(path=str(path), flag=flag)
    write_file(path, page.encode())


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and GENERATOR.encode() in file.read(1000)
    except OSError:
        return False


def _figures(proof: Proof) -> list[str]:
    models = (proof.model, *proof.later)
    figures = []
    for number, model in enumerate(models, 1):
        phase = f"phase {number} of {len(models)}: " if len(models) > 1 else ""
        trains = sum(parameter.numel() for _, parameter in model.trainable())
        frozen = sum(parameter.numel() for parameter in model.parameters()) - trains
        counts = f"{trains:,} parameters train, {frozen:,} are frozen"
        title = f"{phase}{model.summary.model}: {counts}"
        figures.append(graph_figure(model.summary, model.boundary, title))
    return figures
