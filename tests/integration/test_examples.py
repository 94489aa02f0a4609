"""Every example, started as its README says, prints what it is there to show, and leaves nothing running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
SHOWS = {
    "hello": r"hello, world from 127\.0\.0\.1:\d+",
    "policy": r"GET 200 tea, for \S+/sa/shop\nDELETE 403 RBAC: access denied\n(.*\n)*GET 403 .*\nDELETE 403 ",
    "canary": r"everybody: v1 4\d\d, v2 \d\d\na tester: v2",
    "fastapi": r"'in stock': 7, 'seconds left for the answer': 1\.\d+",
    "flask": r"\{'number': 12, 'square': 144\}",
    "django": r"The Comedy of Errors",
    "worker": r"200 task 6 after 2 attempts\nOutboundBlocked: .*authority=nobody:80",
    "testing": r"5 passed",
    "consul": r"catalog: .*hello, legacy\n(.*\n)*http://hello/world -> hello, world\nhttp://legacy/ -> I have never heard",
}


def run_example(name: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MESHLIB_", "MESHCTL_"))}
    return subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_all_examples_are_tried_here() -> None:
    assert {path.parent.name for path in (ROOT / "examples").glob("*/__main__.py")} == SHOWS.keys()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("name", SHOWS)
def test_an_example_shows_what_it_is_there_for(name: str) -> None:
    if name == "consul":
        tools.consul()
    done = run_example(name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(SHOWS[name], done.stdout), done.stdout
    assert "Traceback" not in done.stderr
    # Whatever ran had its port or the control service's in its arguments or its environment.
    folder = re.search(r"--data (\S+)|$", done.stdout)
    assert folder is not None
    if folder[1]:
        assert not Path(folder[1]).parent.exists()
