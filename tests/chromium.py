"""A page in Chromium, driven by a script that is added to it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")


def script(steps: str) -> str:
    """A script element that runs `steps`, which fill `outcome`, and writes the outcome into the page.

    Chromium's virtual time stops during a request only, so `until` waits by requests to `health` of the page's server.
    """
    return f"""<script>
const outcome = {{}};
const until = async (found) => {{ while (!found()) await fetch("health"); }};
addEventListener("error", (event) => outcome.error = event.message);
(async () => {{ try {{ {steps} }} catch (error) {{ outcome.error = String(error); }}
  outcome.outside = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !/^(data|blob):/.test(name) && !name.startsWith(location.origin));
  const shown = document.createElement("pre"); shown.id = "outcome"; shown.textContent = JSON.stringify(outcome);
  document.body.append(shown); }})();
</script>"""


def outcome(url: str, profile: Path, *, size: str = "1200,900") -> dict[str, Any]:
    """Open a page that holds a `script`, and return its outcome; skip the test where there is no Chromium."""
    if _CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-sync", *_QUIET, f"--user-data-dir={profile}"]
    options += [f"--window-size={size}", "--virtual-time-budget=600000", "--dump-dom"]
    done = subprocess.run([_CHROMIUM, *options, url], capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout
    return json.loads(html.unescape(found[1]))
