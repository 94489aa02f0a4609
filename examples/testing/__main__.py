"""Runs the suite: nothing has to be started for it."""

import sys
from pathlib import Path

import pytest

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--override-ini=addopts=", str(Path(__file__).parent)]))
