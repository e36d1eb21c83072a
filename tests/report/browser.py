"""Open pages in headless Chromium, where it is installed, and ask them questions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

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
  parent.postMessage({ page: location.pathname, result, errors, fetched }, "*");
}, 100));
"""


# Each page in a frame of its own, which may be as narrow as a telephone; a browser's start takes longest.
FRAMES = """<!DOCTYPE html>
<script>
const told = {};
addEventListener("message", ({ data }) => {
  told[data.page.split("/").pop()] = data;
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script>
<pre id="told"></pre>
"""


class Question(NamedTuple):
    """What is asked of a page.

    Attributes:
        page: HTML.
        code: Body of a function.
        before: Declarations that it uses.
        width: Of the page, in pixels.
    """

    page: str
    code: str
    before: str = ""
    width: int = 1200


QUESTIONS: dict[str, dict[str, Question]] = {}  # of a module, by test; one browser answers all


def asks(
    page: Callable[[], str], code: str, *, before: str = "", width: int = 1200
) -> Callable[[Any], Any]:
    """Open a page, run a function's body in it, and give the test what that returns as `found`."""

    def noted(test: Any) -> Any:
        questions = QUESTIONS.setdefault(test.__module__, {})
        questions[test.__name__] = Question(page(), code, before, width)
        return test

    return noted


def answers(place: Path, questions: Sequence[Question]) -> list[Any]:
    """Open pages and run a function in each; return its result, errors, and what was fetched.

    A page's own policy stays in force; only two scripts are let in.

    Args:
        place: For the pages and the browser's own files.
        questions: One a page.
    """
    frames = FRAMES
    for number, one in enumerate(questions):
        text = _with_scripts(one.page, LAST % (one.before, one.code))
        (place / f"{number}.html").write_text(text, encoding="utf-8")
        frames += f'<iframe src="{number}.html" width="{one.width}" height="900"></iframe>\n'
    (place / "frames.html").write_text(frames, encoding="utf-8")
    home = f"--user-data-dir={place / 'browser'}"
    # Virtual time: what waits for a moment does so without taking it.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", home]
    command = [str(BROWSER), *flags, "--dump-dom", (place / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="told">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    told = json.loads(unescape(found[1]))
    return [told[f"{number}.html"] for number in range(len(questions))]


def _with_scripts(page: str, last: str) -> str:
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (FIRST, last))
    page = page.replace("script-src ", f"script-src {allowed} ", 1)
    # Behind the policy, so that it is in force; before anything else of the page.
    page = page.replace("<title>", f"<script>{FIRST}</script><title>", 1)
    head, _, tail = page.rpartition("</body>")
    return f"{head}<script>{last}</script></body>{tail}"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
