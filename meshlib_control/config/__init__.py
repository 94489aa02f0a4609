"""Configuration: kinds, parsing, rules and cross-checks.  All of it pure: text and values in, values out."""

from meshlib_control.config.analyze import KnownService, analyze
from meshlib_control.config.code import Code
from meshlib_control.config.codes import CODES, NOT_SUPPORTED, REFUSES
from meshlib_control.config.dump import dump, dump_document
from meshlib_control.config.findings import Finding, Severity
from meshlib_control.config.hosts import fqdn, is_visible
from meshlib_control.config.model import ConfigResource, ConfigSet, Key
from meshlib_control.config.parse import InvalidDocument, load, load_document
from meshlib_control.config.registry import KINDS, Kind
from meshlib_control.config.validate.parts import PARTS, validate_part

__all__ = [
    "CODES",
    "KINDS",
    "NOT_SUPPORTED",
    "PARTS",
    "REFUSES",
    "Code",
    "ConfigResource",
    "ConfigSet",
    "Finding",
    "InvalidDocument",
    "Key",
    "Kind",
    "KnownService",
    "Severity",
    "analyze",
    "dump",
    "dump_document",
    "fqdn",
    "is_visible",
    "load",
    "load_document",
    "validate_part",
]
