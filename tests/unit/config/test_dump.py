"""Resources to YAML and back."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.config import dump, dump_document
from meshlib_control.config.document import read_documents
from tests.unit.config.support import DESTINATION_RULE, VIRTUAL_SERVICE, loaded

scalars = st.text(max_size=20).filter(lambda text: text.isprintable()) | st.sampled_from(
    ["on", "1.10", "010", "1e3", "0o17", "~", "2020-01-01", "1:30", "=", "<<", "- a", "# b", "a: b", "0x1f", "+.5", "null"]
)


def test_what_is_dumped_reads_back() -> None:
    resources = loaded(VIRTUAL_SERVICE, DESTINATION_RULE)
    again = loaded(dump(resources))
    assert [resource.document for resource in again] == [resource.document for resource in resources]


def test_order_is_that_of_the_kind() -> None:
    """The same resource written in another order is the same text."""
    first, second = loaded(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, labels: {y: '1', x: '2'}}\n"
        "spec: {host: a, subsets: [{name: v1, labels: {b: '1', a: '2'}}], exportTo: ['*']}\n"
        "---\n"
        "spec: {exportTo: ['*'], subsets: [{labels: {a: '2', b: '1'}, name: v1}], host: a}\n"
        "metadata: {labels: {x: '2', y: '1'}, name: b}\nkind: DestinationRule\napiVersion: networking.istio.io/v1\n"
    )
    assert dump([first]).replace("name: a\n", "name: b\n") == dump([second])


@given(st.dictionaries(scalars.filter(lambda key: key not in ("", "<<")), scalars, max_size=5))
def test_strings_stay_strings(annotations: dict[str, str]) -> None:
    """Whatever YAML might take for something else is quoted, for our reader and for others."""
    text = dump_document({"apiVersion": "x/v1", "kind": "Unknown", "metadata": {"name": "x", "annotations": annotations}})
    (document,) = read_documents(text)
    assert not document.flaws
    assert document.value["metadata"].get("annotations", {}) == annotations
    assert yaml.safe_load(text)["metadata"].get("annotations", {}) == annotations


def test_shared_values_are_written_out() -> None:
    shared = {"a": "b"}
    text = dump_document(
        {"apiVersion": "x/v1", "kind": "Unknown", "metadata": {"name": "x", "labels": shared, "annotations": shared}}
    )
    assert "&" not in text
    assert "*" not in text
