"""Runs beside a demo and ends what the demo cannot end any more: when its parent dies, even by SIGKILL, standard input ends,
and with it the process group that all of the demo's processes share.  Standard library only: it is run as a script.
"""

import os
import shutil
import signal
import sys
import time

GRACE = 3.0  # seconds between asking and killing


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
