"""Stored documents as resources.  Each document is read once, as long as it stays what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshlib_control.config import ConfigResource, InvalidDocument, load_document

Documents = Mapping[str, Mapping[str, Any]]


class DocumentLoader:
    """Remembers what it read last.  Safe to use from several threads: what is lost in a race is only work."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Mapping[str, Any], ConfigResource]] = {}

    def load(
        self, documents: Documents, created: Mapping[str, int], *, newest: int = 0
    ) -> tuple[dict[str, ConfigResource], dict[str, InvalidDocument]]:
        """The resources by key, and what cannot be read.

        `created`: revision that first stored a key; `newest`: that of keys which are not stored yet.  A document that cannot
        be read while the one before could is among both: the resource as it was, and the error.
        """
        before = self._loaded
        loaded: dict[str, tuple[Mapping[str, Any], ConfigResource]] = {}
        resources: dict[str, ConfigResource] = {}
        errors: dict[str, InvalidDocument] = {}
        for key, document in documents.items():
            entry = before.get(key)
            if entry is None or entry[0] != document:
                try:
                    entry = (document, load_document(document))
                except InvalidDocument as error:
                    errors[key] = error
                    if entry is None:
                        continue
            loaded[key] = entry
            age = created.get(key, newest)
            resources[key] = entry[1] if entry[1].created == age else replace(entry[1], created=age)
        self._loaded = loaded
        return resources, errors
