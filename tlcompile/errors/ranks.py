"""A run on several devices cannot start, or one of its processes ended: ranks are those processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import one_line
from tlcompile.errors.resume import again_after
from tlcompile.errors.run import RunError

TEXT_LIMIT = 300  # characters of what another library says


@dataclass(eq=False, kw_only=True)
class NotEnoughDevicesError(RunError):
    """The machine has fewer devices than the run wants."""

    slug: ClassVar[str] = "not-enough-devices"
    exit_code: ClassVar[int] = 2

    kind: str
    wanted: int
    available: int

    def headline(self) -> str:
        return f"the run wants {self.wanted} devices of kind {self.kind}"

    def facts(self) -> dict[str, str]:
        return {"found": str(self.available), "wanted": str(self.wanted)}

    def fix(self) -> str:
        return f"run.devices={max(self.available, 1)}, or run.device=cpu: as many as you want"


@dataclass(eq=False, kw_only=True)
class OtherRankCountError(RunError):
    """Someone else started the ranks, and not as many as the recipe says."""

    slug: ClassVar[str] = "other-rank-count"
    exit_code: ClassVar[int] = 2

    wanted: int
    started: int

    def headline(self) -> str:
        return f"run.devices is {self.wanted}, and {self.started} processes were started here"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.started} processes", "wanted": f"{self.wanted}, or no run.devices"}

    def fix(self) -> str:
        return "drop run.devices: whoever starts the processes chooses their number"


@dataclass(eq=False, kw_only=True)
class SweepUnderTorchrunError(RunError):
    """A sweep was started once on every device, instead of once."""

    slug: ClassVar[str] = "sweep-under-torchrun"
    exit_code: ClassVar[int] = 2

    world: int

    def headline(self) -> str:
        return "a sweep starts its points itself; it cannot be started once for each device"

    def facts(self) -> dict[str, str]:
        return {"found": f"-m in {self.world} processes", "wanted": "-m in one process"}

    def fix(self) -> str:
        return f"tlcompile train RECIPE -m key=a,b,c run.devices={self.world}"


@dataclass(eq=False, kw_only=True)
class DevicesFromPythonError(RunError):
    """A Python program asks for several devices, and is one process."""

    slug: ClassVar[str] = "devices-from-python"

    wanted: int

    def headline(self) -> str:
        return "tlcompile.train trains on several devices only where one process a device runs it"

    def facts(self) -> dict[str, str]:
        return {"found": f"run.devices: {self.wanted}, one process", "wanted": "torchrun"}

    def fix(self) -> str:
        return f"drop run.devices, and: torchrun --nproc-per-node {self.wanted} YOUR_PROGRAM.py"


@dataclass(eq=False, kw_only=True)
class RankLostError(RunError):
    """A rank was killed, or ended without a word."""

    slug: ClassVar[str] = "rank-lost"

    rank: int
    world: int
    how: str

    def headline(self) -> str:
        return f"rank {self.rank} of {self.world} {self.how}; the others were ended"

    def facts(self) -> dict[str, str]:
        return {"kept": "the last checkpoint"}

    def fix(self) -> str:
        return again_after(self.how)


@dataclass(eq=False, kw_only=True)
class PeerLostError(RunError):
    """A rank found that another one had gone: the cause is what that one says, if it says anything."""

    slug: ClassVar[str] = "peer-lost"

    rank: int
    world: int
    reason: str

    def headline(self) -> str:
        return f"rank {self.rank} of {self.world} lost the connection to another rank"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, TEXT_LIMIT), "kept": "the last checkpoint"}

    def fix(self) -> str:
        return "see what the other rank says; the same command goes on from the last checkpoint"


@dataclass(eq=False, kw_only=True)
class RankCrashedError(RunError):
    """A rank ended with an error that nobody foresaw."""

    slug: ClassVar[str] = "rank-crashed"

    rank: int
    world: int
    reason: str

    def headline(self) -> str:
        return f"rank {self.rank} of {self.world} failed unexpectedly; the others were ended"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, TEXT_LIMIT)}

    def fix(self) -> str:
        return "report it with the output of TLCOMPILE_TRACEBACK=1"
