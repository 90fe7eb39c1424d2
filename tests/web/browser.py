"""The browser that drives the app's page: where it is, and how a bare machine gets one.

python tests/web/browser.py    installs one where there is none; `make test` does so. It also lets
                               npm keep the WebAssembly runtime of the static page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ADVICE = "no browser: install Debian's chromium, or run `playwright install --with-deps chromium`"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The first browser that starts: the system's on PATH, else the one Playwright keeps."""
    return next(filter(starts, candidates()), None)


def candidates() -> Iterator[str]:
    """Programs that may be a browser, the system's before Playwright's own."""
    yield from filter(None, map(shutil.which, NAMES))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if os.path.exists(own):
        yield own


def starts(path: str) -> bool:
    """Whether it runs: Ubuntu's may only point to a snap, and Playwright's may lack libraries."""
    return succeeds([path, "--version"])


def succeeds(command: list[str], seconds: float = 60) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def install() -> str | None:
    """Try every way to get a browser until one starts; say on the way what is done."""
    found = find_browser()
    for way in () if found else ways():
        print("no browser for the app's tests yet:", " && ".join(map(" ".join, way)), flush=True)
        if all(run(command) for command in way):
            found = find_browser()
        if found:
            break
    return found


def ways() -> Iterator[list[list[str]]]:
    """Debian's package where this user may install one, then Playwright's download."""
    root = as_root()
    if root is not None and shutil.which("apt-get"):
        apt = [*root, "apt-get"]
        package = ["install", "-y", "--no-install-recommends", "chromium"]
        yield [[*apt, "update"], [*apt, *package]]
    yield [[sys.executable, "-m", "playwright", "install", "chromium"]]


def as_root() -> list[str] | None:
    """What goes before a command for root: nothing, `sudo` where it asks nothing, else None."""
    if getattr(os, "geteuid", lambda: 1)() == 0:
        return []
    # Variables do not pass through sudo by themselves.
    sudo = ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    return sudo if succeeds(["sudo", "-n", "true"]) else None


def run(command: list[str]) -> bool:
    """Run a command; its output is shown where it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(*done.stdout.strip().splitlines()[-3:], sep="\n", flush=True)
    return done.returncode == 0


def keep_runtime() -> str:
    """Let npm keep what the static page runs its network with, for tests that fetch nothing."""
    text = (Path(__file__).parents[2] / "src/regionnorm/web/site.py").read_text(encoding="utf-8")
    package = "onnxruntime-web@" + re.search(r'^RUNTIME = "(.+)"$', text, re.MULTILINE)[1]
    npm = shutil.which("npm")
    kept = npm is not None and succeeds([npm, "cache", "add", "--prefer-offline", package], 300)
    return package if kept else f"no {package}: install npm"


if __name__ == "__main__":
    # Without a browser the other tests still run.
    print(f"browser: {install() or ADVICE}; {keep_runtime()}")
