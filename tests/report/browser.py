"""Open a page in headless Chromium, where it is installed, and ask it questions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: the page is not opened"
)

FIRST = (
    "window.errors = []; addEventListener('error', e => errors.push(e.message));"
    "document.addEventListener('securitypolicyviolation', e => errors.push(e.violatedDirective));"
    "console.error = (...words) => errors.push(words.join(' '));"
)
LAST = """
const seen = (node) => node.getClientRects().length > 0 && node.getBoundingClientRect().height > 0;
const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
%s
function run() { %s }
addEventListener("load", () => setTimeout(() => {  // what the policy forbids is told later, too
  let result;
  try { result = run(); } catch (error) { errors.push(String(error)); }
  const asked = performance.getEntriesByType("resource").map((one) => one.name);
  const fetched = asked.filter((name) => !name.startsWith("data:"));
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({ result, errors, fetched });
  document.body.append(told);
}, 100));
"""


def asked(tmp_path: Path, page: str, code: str, *, before: str = "", width: int = 1200) -> Any:
    """Open a page, run a function's body in it; return its result, errors, and what was fetched.

    The page's own policy stays in force; only these two scripts are let in.

    Args:
        tmp_path: For the page and the browser's own files.
        page: HTML.
        code: Body of a function.
        before: Declarations that it uses.
        width: Of the page, in pixels; through a frame, as a window cannot be as narrow.
    """
    last = LAST % (before, code)
    file = tmp_path / "page.html"
    file.write_text(_with_scripts(page, last), encoding="utf-8")
    home = f"--user-data-dir={tmp_path / 'browser'}"
    size = f"--window-size={max(width, 500)},900"
    # Virtual time: what waits for a moment does so without taking it.
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        size,
        home,
    ]
    command = [str(BROWSER), *flags, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def in_browser(tmp_path: Path, page: str, code: str, **how: Any) -> Any:
    """Return what a function's body returns; nothing may go wrong on the way, nothing be fetched."""
    told = asked(tmp_path, page, code, **how)
    assert told["errors"] == []
    assert told["fetched"] == []
    return told["result"]


def _with_scripts(page: str, last: str) -> str:
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (FIRST, last))
    page = page.replace("script-src ", f"script-src {allowed} ", 1)
    # Behind the policy, so that it is in force; before anything else of the page.
    page = page.replace("<title>", f"<script>{FIRST}</script><title>", 1)
    head, _, tail = page.rpartition("</body>")
    return f"{head}<script>{last}</script></body>{tail}"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
