"""What others have written is shown to operators; it must not steer their terminals."""

from __future__ import annotations

import pytest
from rich.text import Text

from meshlib_control.cli import output, render

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31mred\x7f\r"


def test_H23_no_text_of_others_reaches_a_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of clients, reasons of NACKs, labels, names: all of them come from somebody else."""
    monkeypatch.setenv("NO_COLOR", "1")
    output.show(render.table((EVIL,), [(f"a{EVIL}b",)]), Text(f"c{EVIL}d"))
    output.say(f"e{EVIL}f")
    output.emit("name", None, human=lambda: Text(), names=lambda: [f"g{EVIL}h"])
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert not {character for character in shown if not character.isprintable()} - {"\n"}
    assert all(letter in shown for letter in "abcdefgh")


def test_lines_and_letters_stay() -> None:
    assert output.harmless("grüße,\n\t世界") == "grüße,\n\t世界"
