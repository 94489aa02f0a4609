"""How the demo's lines fit a narrow terminal."""

from __future__ import annotations

import shlex

from meshlib_control.demo.screen import folded, wrapped

COMMAND = "MESHLIB_PORT=8001 meshctl apply -f a/long/path/to/a/file.yaml -f another.yaml -m 'who may call whom'"


def test_a_folded_command_fits_and_can_still_be_pasted_into_a_shell() -> None:
    lines = folded(COMMAND, 40)
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40
    assert shlex.split("\n".join(lines).removeprefix("   $ ").replace("\\\n", "")) == shlex.split(COMMAND)


def test_an_option_is_not_parted_from_its_value() -> None:
    assert not [line for line in folded(COMMAND, 40) if line.removesuffix(" \\").endswith((" -f", " -m"))]


def test_without_a_terminal_a_command_is_one_line() -> None:
    assert folded(COMMAND, 0) == [f"   $ {COMMAND}"]


def test_text_is_wrapped_with_its_own_indentation_kept() -> None:
    assert wrapped("  one two three", 12, indent=2, hanging=1) == ["    one two", "     three"]
    assert wrapped("  one two three", 0, indent=2) == ["    one two three"]


def test_what_cannot_be_broken_is_not() -> None:
    assert wrapped("spiffe://cluster.local/ns/default/sa/reviews", 20) == ["spiffe://cluster.local/ns/default/sa/reviews"]
