"""The quickstart, done: each of its files written, each of its commands run, each of its outputs seen."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib_control.demo.processes import free_ports
from tests.test_docs import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DEADLINE = 100.0  # seconds for what takes a moment
PORTS = ("15012", "15013", "15014", "8001", "8002")


class Reader:
    """Somebody who does what the page says, in a folder with ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs: list[tuple[str, str]] = []  # what was run, and what it printed
        self._ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self._running: list[subprocess.Popen[bytes]] = []
        control, ca, admin = (f"127.0.0.1:{self._ports[port]}" for port in PORTS[:3])
        self._serve = f" --listen {control} --ca-listen {ca} --admin {admin}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MESHLIB_", "MESHCTL_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(folder / "state"),
            "MESHCTL_SERVER": f"http://{admin}",
            "MESHLIB_CONTROL": control,
            "MESHLIB_CA": ca,
        }

    def write(self, text: str) -> None:
        """A block that begins with the name of its file."""
        if named := re.match(r"# (\w+\.\w+)\n", text):
            (self.folder / named[1]).write_text(text)

    def type(self, line: str) -> None:
        """One command of a console, as bash takes it."""
        line = re.sub(r"(?<=[:= ])(8001|8002)\b", lambda found: self._ports[found[1]], line)
        if line.startswith("export "):
            self.environment |= dict(word.split("=", 1) for word in line.removeprefix("export ").split())
        elif line == "meshctl serve":
            self._start(line + self._serve)
            self._wait_for("meshctl ca status")
        elif line.endswith("&"):
            self._start(line.removesuffix("&"))
        elif not line.startswith("pip "):
            if line == "meshctl endpoints shop":
                self._wait_for(f"{line} | grep -c ' healthy ' | grep -x 2")
            done = self._run(line)
            self.outputs.append((line, done.stdout + done.stderr))

    def close(self) -> None:
        for process in self._running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            process.wait(DEADLINE)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def _start(self, line: str) -> None:
        with (self.folder / f"{len(self._running)}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    ["bash", "-c", line],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def _wait_for(self, line: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while self._run(line).returncode:
            assert time.monotonic() < deadline, f"{line}: {self.log()}"
            assert all(process.poll() is None for process in self._running), self.log()
            time.sleep(0.1)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def counts(text: str) -> dict[str, int]:
    """From what visit.py prints."""
    found: dict[str, int] = ast.literal_eval(re.fullmatch(r"Counter\((.*)\)\n", text)[1])  # type: ignore[index]
    return found


def test_what_the_quickstart_says_happens(reader: Reader) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the page uses curl")
    for block in blocks("console", "python", "yaml"):
        if block.page != "docs/quickstart.md":
            continue
        if block.language != "console":
            reader.write(block.text)
            continue
        for line in re.sub(r" \\\n *", " ", block.text).splitlines():
            if line.startswith("$ "):
                reader.type(line[2:])
    said = [output for line, output in reader.outputs if line == "python visit.py"]
    assert len(said) == 4, reader.outputs
    before, denied, allowed, canary = map(counts, said)
    assert before.keys() == allowed.keys() == {"version=v1", "version=v2"}
    assert denied == {"RBAC: access denied": 1000}
    assert 40 < canary["version=v2"] < 160
    plain = [output for line, output in reader.outputs if line.startswith("curl ")]
    assert plain[0] == "version=v1"
    assert "Empty reply from server" in plain[1]
    before_it, after_it = (output for line, output in reader.outputs if line.startswith("meshctl authz check"))
    assert "\nDENIED: there are ALLOW policies, and none of them matched\n" in before_it
    assert "\nALLOWED by AuthorizationPolicy/default/shop rule 0: an ALLOW policy matched\n" in after_it
    assert "from spiffe://cluster.local/ns/default/sa/visitor: 403 rbac_access_denied" in reader.log()
