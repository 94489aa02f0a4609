"""YAML and JSON text to values that know their places."""

from __future__ import annotations

import pytest

from meshlib_control.config.document import MAX_CHARACTERS, MAX_DEPTH, Document, read_documents


def only(text: str) -> Document:
    (document,) = read_documents(text)
    return document


def flaws(text: str) -> list[tuple[str, int, int]]:
    return [(flaw.code, *flaw.position) for document in read_documents(text) for flaw in document.flaws]


def test_places_are_those_of_the_text() -> None:
    """A scalar is where its value starts, anything larger where its key or dash stands."""
    document = only("a:\n  b: [x, y]\n  c:\n  - d: 1\n  - 2\n")
    assert document.locate(("a",)) == (1, 1)
    assert document.locate(("a", "b")) == (2, 3)
    assert document.locate(("a", "b", 1)) == (2, 10)
    assert document.locate(("a", "c", 0, "d")) == (4, 8)
    assert document.locate(("a", "c", 0, "d"), key=True) == (4, 5)
    assert document.locate(("a", "c", 1)) == (5, 5)


def test_what_is_missing_is_placed_at_the_nearest_parent() -> None:
    assert only("a:\n  b: {c: 1}\n").locate(("a", "b", "missing", 3, "deep")) == (2, 3)
    assert only("# comment\n---\nx: 1\n").locate(("missing",)) == (2, 1)


def test_documents_are_apart_and_empty_ones_are_none() -> None:
    text = "\ufeff# head\n---\na: 1\n---\n# nothing\n\n--- # still nothing\n---\nb: 2\n...\n---\n"
    documents = list(read_documents(text))
    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].locate(("b",)) == (9, 4)


def test_a_syntax_error_spoils_its_own_document_only() -> None:
    documents = list(read_documents("a: 1\n---\nb: c: d\n---\nx: |\n  ---indented is text\ny: 2\n"))
    assert [document.value for document in documents] == [{"a": 1}, None, {"x": "---indented is text\n", "y": 2}]
    assert [(flaw.code, *flaw.position) for flaw in documents[1].flaws] == [("MSH0001", 3, 5)]


def test_tabs_are_explained() -> None:
    (flaw,) = only("a:\n\tb: 1\n").flaws
    assert flaw.code == "MSH0001"
    assert flaw.position[0] == 2
    assert flaw.message.endswith("; YAML indents with spaces, not tabs")
    (other,) = only("a: b\n  c: d\n").flaws
    assert "tabs" not in other.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("12", 12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("-0.5", -0.5),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("=", "="),
        ("y", "y"),
        ("v1", "v1"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ('"yes"', "yes"),
        ("'12'", "12"),
        ("!!str 12", "12"),
    ],
)
def test_unquoted_scalars(text: str, value: object) -> None:
    """As Kubernetes reads them, without the forms of YAML 1.1 that nobody expects."""
    document = only(f"x: {text}\n")
    assert document.value == {"x": value}
    assert type(document.value["x"]) is type(value)
    assert not document.flaws


@pytest.mark.parametrize("text", ["010", "-0777", "00", "0800"])
def test_leading_zeros_are_refused(text: str) -> None:
    """YAML 1.1 takes them for octal, 1.2 does not."""
    assert flaws(f"x: {text}\n") == [("MSH0004", 1, 4)]
    assert not flaws(f'x: "{text}"\n')


def test_the_text_of_numbers_is_kept_for_messages() -> None:
    assert only("version: 1.10\nname: x\n").written == {("version",): "1.10"}


def test_duplicate_keys_are_errors_and_the_first_holds() -> None:
    document = only("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert document.value == {"a": 1, "b": {"c": 1}}
    assert [(flaw.code, *flaw.position) for flaw in document.flaws] == [("MSH0003", 4, 3), ("MSH0003", 5, 1)]
    assert "line 3" in document.flaws[0].message


@pytest.mark.parametrize("text", ["? [a]\n: b", "[a, b]: 3", "~: 1", "x: !foo 1", "!!python/object:os.system {}", "x: *nope"])
def test_what_has_no_meaning_in_configuration_is_refused(text: str) -> None:
    assert "MSH0004" in [code for code, *_ in flaws(text)]


def test_keys_are_names_even_where_yaml_sees_a_number() -> None:
    assert only("ports: {7777: 1, on: 2}\n").value == {"ports": {"7777": 1, "on": 2}}


def test_anchors_aliases_and_merges() -> None:
    document = only("base: &base {a: 1, b: 2}\ncopy: *base\nmore: {<<: *base, b: 3}\nboth: {<<: [{x: 1}, *base]}\n")
    assert document.value == {
        "base": {"a": 1, "b": 2},
        "copy": {"a": 1, "b": 2},
        "more": {"b": 3, "a": 1},
        "both": {"x": 1, "a": 1, "b": 2},
    }
    assert not document.flaws
    assert document.locate(("copy", "a")) == (2, 1)


def test_an_alias_within_itself_is_refused() -> None:
    assert flaws("a: &x [*x]\n") == [("MSH0004", 1, 8)]


def test_aliases_count_as_often_as_they_are_used() -> None:
    """Nine levels of nine references each would be 387 million values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    assert [code for code, *_ in flaws("\n".join(lines))] == ["MSH0002"]


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000])
def test_depth_is_limited(text: str) -> None:
    assert [code for code, *_ in flaws(text)] == ["MSH0002"]


def test_depth_up_to_the_limit_is_fine() -> None:
    assert not flaws("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert flaws("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_size_is_limited() -> None:
    assert flaws("x" * (MAX_CHARACTERS + 1)) == [("MSH0002", 1, 1)]


@pytest.mark.parametrize("text", ["x: \x01", "x: \ud800", "\x00"])
def test_what_is_not_text_is_reported(text: str) -> None:
    assert [code for code, *_ in flaws(text)][:1] == ["MSH0001"]


def test_json_is_read_as_json() -> None:
    """Tabs, exponents, escaped slashes and surrogate pairs are JSON's, not YAML's."""
    document = only('{\n\t"a":1e3,\n\t"b":"\\ud83d\\ude00 \\/ \\u00e9",\n\t"c":[true,null]\n}')
    assert document.value == {"a": 1000.0, "b": "😀 / é", "c": [True, None]}
    assert document.locate(("b",)) == (3, 6)
