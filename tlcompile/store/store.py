"""The store of features: sets of rows in folders that processes share, found by their fingerprint.

    <root>/features/v1/<key[:2]>/<key>/   about.json, blocks <sha256>.rows, lock
    <root>/features/v1/quarantine/<key>/  damaged files; never read and never deleted

Another format lives in another folder, so no version reads what another one wrote.
"""

from __future__ import annotations

from pathlib import Path

from tlcompile.store.about import FORMAT, About, is_digest
from tlcompile.store.blocks import listed
from tlcompile.store.eviction import evict, remove_set, sweep
from tlcompile.store.feature_set import FeatureSet
from tlcompile.store.index import Keys
from tlcompile.store.stored import BadFile, StoredSet, bad_files, look

__all__ = ["About", "BadFile", "FeatureSet", "Keys", "Store", "StoredSet"]


class Store:
    """All sets under one folder; nothing is on the disk before the first write."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.root = cache / "features" / f"v{FORMAT}"

    def open(self, about: About) -> FeatureSet:
        """Return a set, without a look at the disk: `refresh` and `lease` do that."""
        folder = self.root / about.key[:2] / about.key
        return FeatureSet(self.cache, folder, self.root / "quarantine" / about.key, about)

    def sets(self) -> list[StoredSet]:
        """List what is stored, the least recently used first."""
        return [one for one in self._looked_at() if one.num_bytes]

    def num_bytes(self) -> int:
        """Return the bytes of all sets."""
        return sum(one.num_bytes for one in self.sets())

    def quarantined(self) -> list[Path]:
        """List damaged files that runs have put aside; they count for no budget."""
        return sorted(path for path in (self.root / "quarantine").rglob("*") if path.is_file())

    def verify(self) -> list[BadFile]:
        """Read every byte; return each file that is damaged, of another set, or not the store's.

        Nothing is moved: the next run that needs a damaged block puts it aside and computes its
        rows again.
        """
        return [bad for folder in self._folders() for bad in bad_files(folder)]

    def collect(self, budget_bytes: int) -> list[StoredSet]:
        """Evict sets until the rest fits, the least recently used first; return what has gone.

        What killed processes left is swept. A set whose lease a living process holds stays.

        Raises:
            RunError: The disk did not let it.
        """
        sweep([*self._shelves(), *self._folders()])
        for one in self._looked_at():
            if not one.num_bytes:
                remove_set(one.folder)
        return evict(self.sets(), budget_bytes)

    def _looked_at(self) -> list[StoredSet]:
        found = map(look, self._folders())
        return sorted(found, key=lambda one: (one.last_used, one.about.key))

    def _shelves(self) -> list[Path]:
        return [self.root / name for name in listed(self.root) if len(name) == 2]

    def _folders(self) -> list[Path]:
        found = [shelf / name for shelf in self._shelves() for name in listed(shelf)]
        return [folder for folder in found if is_digest(folder.name)]
