"""Where the features of a run come from: the store, memory, or computed in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlcompile.data.digests import Keys, digests_of
from tlcompile.data.loading import Pair, load_pixels
from tlcompile.data.notes import count_notes
from tlcompile.data.samples import Samples
from tlcompile.errors.base import listed
from tlcompile.errors.features import STORE_ERRORS, CacheFullError, OverBudgetError
from tlcompile.errors.run import RunError
from tlcompile.features.augment import AugmentedSource
from tlcompile.features.extract import Report, extract, missing
from tlcompile.features.fingerprint import describe, describe_pixels, differs
from tlcompile.features.hard import open_prefix
from tlcompile.features.pixels import StoredPixels
from tlcompile.features.precision import choose_precision
from tlcompile.features.prefix import Loader, Prefix
from tlcompile.features.room import Wanted, make_room
from tlcompile.features.root import cache_root
from tlcompile.features.sources import (
    InMemory,
    InStore,
    KeptSource,
    LiveSource,
    Places,
    Source,
    compute_rows,
)
from tlcompile.features.tiers import SHARE, Tier, free_bytes
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.sizes import parse_bytes
from tlcompile.run.costs import tier_of
from tlcompile.run.parts import Part, parts_of
from tlcompile.run.say import progress
from tlcompile.run.shared import Own
from tlcompile.run.splits import Say, check_readable
from tlcompile.store.store import About, FeatureSet, Store
from tlcompile.zoo.preprocessing import Preprocessing

LIVE = Tier("live", 0.0, 0.0)  # the plan of a sweep has decided so


class SourceBuilder:
    """Builds the source of each split, and tells what the store did for it.

    Args:
        recipe: What the user asked for.
        preprocessing: What every image goes through.
        model: The recipe, compiled.
        device: Where to compute.
        say: Takes lines for the user.
        precision: Instead of the recipe's: what `auto` became in an earlier run.
        own: Where features go that nobody else can use; None: the shared store.
        digests: Of the images of splits, where they are known already.
        shared: What the points of a sweep make once.
        describe: Names the rows of each boundary tensor; another may know them already.
        planned: Images a pass, where the plan of a sweep has decided that all rows are stored.
        rank: Of the process, where several train together: each changes features by draws of its own.

    Attributes:
        precision: As it is computed: exact, fp32-fused or fast.
        told: What the record says of it.
    """

    def __init__(
        self,
        recipe: Recipe,
        preprocessing: Preprocessing,
        model: CompiledModel,
        device: torch.device,
        say: Say,
        precision: str | None = None,
        own: Store | None = None,
        digests: Mapping[str, Keys] = MappingProxyType({}),
        shared: Own | None = None,
        describe: Callable[..., tuple[About, ...]] = describe,
        planned: int | None = None,
        rank: int = 0,
    ) -> None:
        self.planned, self.rank = planned, rank
        self.own, self.digests = own, digests
        self.shared, self.describe = shared or Own(), describe
        self.recipe, self.preprocessing, self.model = recipe, preprocessing, model
        self.device, self.say = device, say
        self.root = Path(recipe.run.cache) if recipe.run.cache else cache_root()
        word = precision or recipe.features.precision
        off = recipe.features.cache == "off"  # then nothing is written outside the run's folder
        self.precision = choose_precision(word, device, None if off else self.root)
        self.tier: Tier | None = None
        self.told: dict[str, Any] = {"precision": self.precision}

    def sources(self, splits: Mapping[str, Samples]) -> dict[str, Source]:
        """Return where the rows of each split come from, by its name.

        Images of train and val are changed as the recipe says, others never.

        Raises:
            DataError: Images are bad.
        """
        parts = parts_of(self.recipe, splits, self.preprocessing.size or 0)
        if self.recipe.features.cache == "off":
            found = self._all_live(parts)
        else:
            try:
                found = self._stored(parts)
            except STORE_ERRORS as error:  # what was stored before stays
                found = self._unstored(parts, _worded(error))
        augment = self.recipe.features.augment
        if "train" in found and self.model.boundary and (augment.noise or augment.dropout):
            seed = self.recipe.fine_tune.seed
            found["train"] = AugmentedSource(
                found["train"], augment.noise, augment.dropout, seed, self.rank
            )
        return found

    def _stored(self, parts: list[Part]) -> dict[str, Source]:
        """Return rows from the store; those that it does not have are computed and stored."""
        store, workers = self.shared.store(self.root), self.recipe.run.workers
        digests = {
            part.name: self.digests[part.name]
            if part.name in self.digests
            else digests_of(part.samples, workers=workers)
            for part in parts
        }
        sets = self._sets(self.own or store, parts)
        keys = {part.name: part.keys(digests[part.name]) for part in parts if sets and part.tags}
        absent = {name: len(missing(sets, wanted)) for name, wanted in keys.items()}
        read = [part for part in parts if part.as_they_are and absent.get(part.name, 1)]
        pixels = self._pixel_set(store) if read else []
        rows = [(one, np.concatenate(list(keys.values()))) for one in sets if keys]
        images = [(one, np.concatenate([digests[part.name] for part in read])) for one in pixels]
        pixels = self._make_room(store, rows, images)
        live = [part for part in parts if part.name not in keys]
        prefix = self._prefix(sum(absent.values()) + _rows(live) * self.recipe.fine_tune.epochs)
        report, found = Report(), {}
        for part in parts:
            load = self._loader(part, digests[part.name], pixels)
            unread = np.arange(len(part.samples))  # what will be decoded now
            if part.name in keys:
                unread = np.unique(missing(sets, keys[part.name]) // part.views)
            if part.as_they_are and pixels:
                unread = np.intersect1d(unread, missing(pixels, digests[part.name]))
            self._note(part, unread.tolist())
            if part.name in keys:
                report += self._extract(part, sets, keys[part.name], load, prefix)
                found[part.name] = self._kept(part, sets, keys[part.name])
            else:
                report += self._prepare(part, digests[part.name], load)
                found[part.name] = self._live(part, load, prefix)
        self._tell(sets, pixels, report)
        return found

    def _sets(self, store: Store, parts: list[Part]) -> list[FeatureSet]:
        """Return a set for each boundary; none where nothing is frozen, or computing is faster."""
        abouts = self.abouts()
        rows = sum(len(part.samples) * part.views for part in parts)
        self.tier = tier_of(self.recipe, self.model, self.device.type, rows)
        if self.planned is None and (self.tier is None or self.tier.name == "live"):
            return []
        if not self.shared.not_kept().isdisjoint(about.key for about in abouts):
            self.tier = LIVE
            return []
        needed = rows * sum(about.row_bytes for about in abouts)
        budget = parse_bytes(self.recipe.run.cache_budget)
        if needed > budget:  # before anything is made for each row
            raise OverBudgetError(path=self.root, needed_bytes=needed, budget_bytes=budget)
        if describe_pixels(self.preprocessing) is None:
            self.say("features    computed in every epoch: images are not cropped to one size")
            return []
        return _refreshed([store.open(about) for about in abouts])

    def abouts(self) -> tuple[About, ...]:
        """Name the rows of each boundary tensor."""
        return self.describe(
            self.model,
            preprocessing=self.preprocessing,
            chunk_size=self.chunk_size(),
            precision=self.precision,
            device=self.device,
        )

    def chunk_size(self) -> int:
        """Return how many images a pass has."""
        return self._prefix(0).chunk_size

    def store(self, splits: Mapping[str, Samples]) -> None:
        """See to it that the store has all rows of splits.

        Raises:
            STORE_ERRORS: The disk or the budget did not let it; what was stored stays.
            DataError: Images are bad.
        """
        self._stored(parts_of(self.recipe, splits, self.preprocessing.size or 0))

    def _pixel_set(self, store: Store) -> list[FeatureSet]:
        """Return the set of prepared images, where all have one size."""
        about = describe_pixels(self.preprocessing)
        return _refreshed([store.open(about)]) if about else []

    def _make_room(self, store: Store, rows: Wanted, images: Wanted) -> list[FeatureSet]:
        """Make room, if need be for rows alone; return the sets of images that have room.

        Raises:
            RunError: There is none.
        """
        budget = parse_bytes(self.recipe.run.cache_budget)
        try:
            if self.own:
                make_room(self.own, rows, budget)
            make_room(store, images if self.own else [*rows, *images], budget)
        except (OverBudgetError, CacheFullError) as error:
            if not rows or not images:
                raise
            make_room(self.own or store, rows, budget)
            self.say(f"features    prepared images are not stored: {_worded(error)}")
            return []
        return [one for one, _ in images]

    def _prefix(self, rows: int) -> Prefix:
        """Return the frozen part as the recipe wants it computed, for so many rows."""
        size = self.recipe.features.batch_size
        prefix = open_prefix(
            self.model, size, self.precision, self.device, images=rows, say=self.say
        )
        return replace(prefix, chunk_size=self.planned or prefix.chunk_size)

    def _loader(self, part: Part, digests: Keys | None, pixels: Sequence[FeatureSet]) -> Loader:
        """Return what reads a split's images, each in its view."""

        def decode(pairs: Sequence[Pair]) -> Tensor:
            return load_pixels(
                part.samples,
                pairs,
                self.preprocessing,
                workers=self.recipe.run.workers,
                augmentations=part.augmentation,
                digests=digests,
            )

        if part.as_they_are and digests is not None:
            for stored in pixels:
                return StoredPixels(stored, digests, decode, self.preprocessing.normalise)
        return lambda pairs: self.preprocessing.normalise(decode(pairs))

    def _extract(
        self, part: Part, sets: Sequence[FeatureSet], keys: Keys, load: Loader, prefix: Prefix
    ) -> Report:
        """See to it that the store has all rows of a split."""
        with progress(f"features of {part.name}", len(keys)) as advance:
            return extract(
                sets,
                keys,
                load,
                prefix,
                chunk_size=prefix.chunk_size,
                views=part.views,
                advance=advance,
                loaded=load.close if isinstance(load, StoredPixels) else lambda: None,
            )

    def _kept(self, part: Part, sets: Sequence[FeatureSet], keys: Keys) -> Source:
        rows: Places = InStore(sets, [one.locate(keys) for one in sets], self.device)
        if self.tier is not None and self.tier.name == "device":
            rows = InMemory(rows.gather(np.arange(len(keys))))
        targets = part.targets(self.preprocessing, self.recipe.run.workers)
        return KeptSource(rows, targets, part.views, self.recipe.fine_tune.seed)

    def _prepare(self, part: Part, digests: Keys, load: Loader) -> Report:
        """Decode every image of a split that runs live once: into the store, or as a proof."""
        if not isinstance(load, StoredPixels):
            check_readable(self.recipe, [part.samples])
            return Report()
        with progress(f"images of {part.name}", len(digests)) as advance:
            return extract(
                [load.stored],
                digests,
                load.decode,
                lambda images: (images,),
                chunk_size=self.recipe.features.batch_size,
                advance=advance,
            )

    def _note(self, part: Part, chosen: Sequence[int]) -> None:
        """Say what reading does to some images of a split."""
        notes = count_notes(part.samples, chosen, self.recipe.run.workers)
        for note, count in sorted(notes.items()):
            self.say(f"images      {part.name}: {note}: {count:,} of the {len(chosen):,} read now")

    def _live(self, part: Part, load: Loader, prefix: Prefix) -> Source:
        """Return rows that are computed in every epoch."""
        views = part.views if part.tags and part.name == "train" else None
        targets = part.targets(self.preprocessing, self.recipe.run.workers)
        return LiveSource(load, prefix, targets, views, self.recipe.fine_tune.seed)

    def _all_live(self, parts: Sequence[Part]) -> dict[str, Source]:
        """Return rows that are computed in every epoch, and images that are read in each."""
        check_readable(self.recipe, [part.samples for part in parts])
        for part in parts:
            self._note(part, range(len(part.samples)))
        prefix = self._prefix(_rows(parts) * self.recipe.fine_tune.epochs)
        return {part.name: self._live(part, self._loader(part, None, []), prefix) for part in parts}

    def _unstored(self, parts: Sequence[Part], why: str) -> dict[str, Source]:
        """Return rows without the store: in memory where they fit, else live."""
        self.told["not_stored"] = why
        num_bytes = sum(b.num_bytes for b in self.model.boundary) * _rows(parts)
        free = free_bytes()["device" if self.device.type == "cuda" else "memory"]
        if not num_bytes or num_bytes > free * SHARE:
            self.say(f"features    {why}; the run goes on live, without the store")
            return self._all_live(parts)
        self.say(f"features    {why}; the run goes on without the store, from memory")
        prefix = self._prefix(_rows(parts))
        found: dict[str, Source] = {}
        for part in parts:
            load = self._loader(part, None, [])
            if not part.tags:
                check_readable(self.recipe, [part.samples])
                found[part.name] = self._live(part, load, prefix)
                continue
            count = len(part.samples)
            with progress(f"features of {part.name}", count * part.views) as advance:
                rows = compute_rows(load, prefix, count, views=part.views, advance=advance)
            seed = self.recipe.fine_tune.seed
            targets = part.targets(self.preprocessing, self.recipe.run.workers)
            found[part.name] = KeptSource(InMemory(rows), targets, part.views, seed)
        return found

    def _tell(
        self, sets: Sequence[FeatureSet], pixels: Sequence[FeatureSet], report: Report
    ) -> None:
        """Print the one line about the store, and keep it for the record."""
        for line in (line for one in (*sets, *pixels) for line in one.damaged):
            self.say(f"features    put aside: {line}")
        told = sets or pixels
        if not told:
            return
        names = ", ".join(f"{one.about.vertex} as {one.about.key[:8]}" for one in told)
        where = self.own.cache if self.own and sets else self.root
        word, how = ("features", f", {self.precision}") if sets else ("images", "")
        self.say(f"{word:<12}{report.worded()} ({names}{how}, in {where})")
        if sets and not report.hits:
            self._say_why_not(sets)
        self.told |= {
            "store": [{"vertex": one.about.vertex, "key": one.about.key} for one in told],
            **report.as_data(),
        }

    def _say_why_not(self, sets: Sequence[FeatureSet]) -> None:
        """Where the store has the same vertex under another fingerprint, say what differs."""
        if self.own:
            return
        wanted = sets[0].about
        base = wanted.ingredients.get("base")
        others = [one.about for one in Store(self.root).sets() if one.about.key != wanted.key]
        alike = [
            about
            for about in others
            if about.vertex == wanted.vertex and about.ingredients.get("base") == base
        ]
        if alike:
            self.say(f"features    earlier ones differ: {listed(differs(wanted, alike[-1]), 4)}")


def _refreshed(sets: list[FeatureSet]) -> list[FeatureSet]:
    for one in sets:
        one.refresh()
    return sets


def _rows(parts: Iterable[Part]) -> int:
    return sum(len(part.samples) * part.views for part in parts)


def _worded(error: RunError) -> str:
    """Return an error in one line, with its facts."""
    facts = ", ".join(f"{name} {value}" for name, value in error.facts().items())
    return f"{error.headline()} ({facts}); {error.fix()}" if facts else error.headline()
