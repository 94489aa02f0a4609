"""Every known attack, fault and rule that this library answers to is a test that is named by its id, or has a reason here.

The ids: paths (P), hosts and headers (H), identity and policies (I), tokens (J), limits (L), the control service (C), threats
to it (T), the 15 rules of X.509-SVIDs (XV) and faults of certificates, keys, endpoints and load (F).  docs/security.md groups
them by threat.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

CASES: dict[str, str] = {
    "P01": "dot segments",
    "P02": "encoded dots",
    "P03": "backslashes",
    "P04": "several slashes",
    "P05": "escaped slashes",
    "P06": "double encoding",
    "P07": "fragments",
    "P08": "queries in exact matches",
    "P09": "dot segments with parameters",
    "P10": "parameters of segments",
    "P11": "an asterisk in a request against a template",
    "P12": "a path that looks like //host",
    "P13": "gRPC: a method without its slash",
    "P14": "gRPC: spellings of a method",
    "P15": "exact without case is not a prefix",
    "P16": "NUL, control bytes, overlong UTF-8",
    "P17": "a target that begins with no slash",
    "P18": "absolute targets",
    "P19": "OPTIONS * and CONNECT",
    "P20": "where prefixes end",
    "P21": "case of paths",
    "P22": "expensive regular expressions",
    "P23": "bytes that regular expressions do not see",
    "H01": "case of hosts",
    "H02": "ports of hosts",
    "H03": "trailing dots of hosts",
    "H04": "matchers that an older client does not know",
    "H05": "several hosts, or none",
    "H06": "hosts with a path in them",
    "H07": "X-Forwarded-Host",
    "H08": "repeated headers: the first",
    "H09": "repeated headers: joined",
    "H10": "repeated headers: the last",
    "H11": "imported intentions",
    "H12": "NUL in headers",
    "H13": "white space around values",
    "H14": "underscores for hyphens",
    "H15": "case of header names in policies",
    "H16": "headers that Connection nominates",
    "H17": "x-forwarded-client-cert from outside",
    "H18": "no address counts as internal",
    "H19": "x-envoy-original-path",
    "H20": "X-Forwarded-For",
    "H21": "case of schemes",
    "H22": "line feeds in what we send on",
    "H23": "line feeds and escapes in what is logged",
    "H24": "two readings of where a request ends",
    "H25": "bytes after an upgrade",
    "H26": "trailers",
    "I01": "SPIFFE's rules for certificates",
    "I02": "NUL in names of certificates",
    "I03": "kinds of names confused",
    "I04": "extended key usages",
    "I05": "wildcards in DNS names",
    "I06": "resumed sessions after a change of trust",
    "I07": "no certificate or root yet",
    "I08": "TLS settings that cannot be used",
    "I09": "secure naming",
    "I10": "certificates that nobody verified",
    "I11": "exclusion of identities and plaintext",
    "I12": "suffixes of principals on TCP",
    "I13": "dots in generated expressions",
    "I14": "aliases of trust domains",
    "I15": "order of policies, empty rules",
    "I16": "fields of HTTP on TCP",
    "I17": "matchers that are not understood",
    "I18": "overrides for routes",
    "I19": "routes for other namespaces' services",
    "J01": "no algorithm",
    "J02": "a public key as a secret",
    "J03": "algorithm and key that do not fit",
    "J04": "unknown critical headers",
    "J05": "JSON serialization",
    "J06": "issuers",
    "J07": "audiences",
    "J08": "times",
    "J09": "key ids",
    "J10": "keys in the token",
    "J11": "keys that cannot be had",
    "J12": "key servers that fail later",
    "J13": "server-side request forgery",
    "J14": "tokens of unknown issuers",
    "J15": "two tokens",
    "J16": "malformed and huge tokens",
    "J17": "claims that become headers",
    "L01": "many headers",
    "L02": "long hosts",
    "L03": "huge grpc-timeout",
    "L04": "decompression bombs",
    "L05": "floods of HTTP/2",
    "L06": "slow readers and writers",
    "L07": "timers within a backoff",
    "C01": "caches keyed by identity",
    "C02": "debug endpoints",
    "C03": "large, deep and odd messages before authentication",
    "C04": "default secrets",
    "C05": "names in an admin page",
    "C06": "certificates for identities that one has no right to",
    "C07": "session cookies",
    "T01": "what a CSR asks for",
    "T02": "join tokens: theft, replay, guessing",
    "T03": "tokens of other issuers",
    "T04": "renewal with a stolen certificate",
    "T05": "metadata of nodes",
    "T06": "plaintext ports",
    "T07": "one namespace writes for others; bombs in configuration",
    "T08": "authentication of administrators",
    "T09": "browsers of administrators",
    "T10": "secrets at rest",
    "T11": "misuse of the authority's key",
    "T12": "stores that were put back",
    "T13": "exhaustion of the control service",
    "T14": "where URLs in the configuration lead",
    "T15": "lies of catalogs",
    "T16": "the first contact",
    "T17": "keys that show",
    "T18": "dependencies",
    **{f"XV-{number}": f"rule {number} of X.509-SVIDs" for number in range(1, 16)},
    "F13": "half-open connections",
    "F14": "endpoints that swallow what is sent to them",
    "F15": "connections that end in a response",
    "F16": "slow readers and writers on the data plane",
    "F17": "endpoints that come and go",
    "F18": "all endpoints fail now and then",
    "F19": "one of several endpoints fails always",
    "F20": "all endpoints are down",
    "F21": "three times of what a server can do",
    "F22": "retries of retries",
    "F23": "the own certificate cannot be renewed",
    "F24": "certificates of peers and clocks",
    "F25": "roots are rotated",
    "F26": "the authority's key is lost, or is another",
    "F27": "clocks jump",
    "F37": "key servers are away",
    "F41": "a zone fails, in part or as a whole",
    "F42": "too many endpoints are unhealthy",
}

ELSEWHERE: dict[str, str] = {
    "H04": "clients are not told apart by version: every matcher that is sent is one that all flavours know; a real Envoy and "
    "grpcio take every resource (tests/integration/test_envoy_accepts.py, test_grpcio_accepts.py)",
    "H11": "Consul's intentions are not imported; policies are Istio's",
    "L07": "a call is one generator of commands: an attempt ends before the wait for the next one begins, so no timers race",
    "C04": "there is no admin page yet, and no default secret: the REST API's token is random (T08)",
    "C05": "there is no admin page yet; what others write is shown by meshctl without control characters (H23)",
    "C07": "there are no session cookies: the REST API takes a bearer token",
    "T18": "a matter of releases: minimum versions are in pyproject.toml",
}


def words(source: str) -> Iterator[str]:
    """What a test is called, says and is parametrized with: names of its functions, strings and comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name.upper()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def found() -> dict[str, set[str]]:
    """Files of tests, by the ids that they name.  Certificates of SPIFFE's rules are named where they are made."""
    files: dict[str, set[str]] = defaultdict(set)
    tests = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    for path in (*tests, TESTS / "support" / "svids.py"):
        for text in words(path.read_text()):
            for case in re.findall(r"(?<![A-Za-z0-9])(?:XV-?\d+|[PHIJLCTF]\d\d)(?!\d)", text):
                files[case if "-" in case or case[0] != "X" else f"XV-{case[2:]}"].add(path.name)
    return files


FOUND = found()


@pytest.mark.parametrize("case", CASES)
def test_a_case_has_a_test_or_a_reason(case: str) -> None:
    assert FOUND.get(case) or ELSEWHERE.get(case), f"{case} ({CASES[case]}): no test names it"


def test_reasons_are_about_cases() -> None:
    assert ELSEWHERE.keys() <= CASES.keys()
