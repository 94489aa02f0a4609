"""All benchmarks, one after the other: `python -m benchmarks [--json FILE] [--quick] [NAME ...]`.

Each runs in a process of its own and adds its figures to FILE.  The exit code is 0 whatever the figures are: machines differ,
and a figure is for people to judge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

NAMES = ("flow", "features", "authorization", "jwt", "engine", "calls", "sidecars", "zero_trust", "control_plane", "faults")
QUICK = {"calls": ["--rounds", "3"], "sidecars": ["--rounds", "3"], "zero_trust": ["--rounds", "3"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them unless given")
    arguments.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    arguments.add_argument("--quick", action="store_true", help="fewer rounds")
    options = arguments.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        arguments.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options.json.unlink(missing_ok=True)
    for name in options.names or NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(options.json)]
        print(f"\n== {name}", flush=True)
        if subprocess.run([*command, *(QUICK.get(name, []) if options.quick else [])], check=False).returncode:
            print(f"   {name} failed", flush=True)
    if options.json.exists():
        print(f"\nfigures: {options.json} ({len(json.loads(options.json.read_text()))} groups)")


if __name__ == "__main__":
    main()
