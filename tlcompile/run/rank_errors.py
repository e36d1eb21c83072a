"""Errors on their way from a rank to whoever started it."""

from __future__ import annotations

import base64
import json
import pickle
import time
from pathlib import Path

from tlcompile.durable.files import write_file
from tlcompile.errors.base import TLCompileError


def write_error(path: Path, error: TLCompileError) -> None:
    """Leave an error for the launcher; torchrun prints the message, ours takes the error itself."""
    now = time.time()
    message = {
        "message": f"\n{error}",
        "extraInfo": {"py_callstack": str(error), "timestamp": str(int(now))},
    }
    sent = {"time": now, "error": base64.b64encode(pickle.dumps(error)).decode()}
    write_file(path, json.dumps({"message": message, "tlcompile": sent}).encode())


def read_errors(folder: Path) -> list[TLCompileError]:
    """Return what the ranks left, the first first; the folder must be ours alone: it is unpickled."""
    files = [json.loads(path.read_bytes()) for path in folder.rglob("error.json")]
    sent = [one["tlcompile"] for one in files if "tlcompile" in one]
    return [
        pickle.loads(base64.b64decode(one["error"]))
        for one in sorted(sent, key=lambda one: float(one["time"]))
    ]
