"""Rules about paths and hosts, held against every way that a request can be read.

Istio matches one string.  Where the same request could be read as another one (``/admin%2Fkeys`` by an application that sees
decoded paths, ``secret.com:8080`` by a rule about ``secret.com``), a rule that restricts holds if it does for *any* reading,
and one that grants only if it does for *each*.  So what Istio denies is denied here, and no spelling of a request gets it more.

    position                                                restricts
    DENY, AUDIT, CUSTOM: paths, hosts                       yes
    ALLOW: paths, hosts                                     no
    ALLOW: notPaths, notHosts (the matcher below the not)   yes
    DENY, AUDIT, CUSTOM: notPaths, notHosts                 no
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from meshlib.model.inbound import Inspection

TextTest = Callable[[str], bool]
InspectionTest = Callable[[Inspection], bool]


def decoded(value: str) -> str:
    """All percent-escapes decoded once, byte for character: what a rule's own value is compared as with decoded paths."""
    return unquote_to_bytes(value).decode("latin-1")


def path_rule(test: TextTest, *, restricts: bool, decoded_test: TextTest | None = None) -> InspectionTest:
    """`test` on the canonical path and on its other readings.

    `decoded_test`: the same rule made from `decoded(value)`, for rules that restrict; without it, `test` sees the decoded path.
    Where a rule's own value has escapes, `test` is to hold for the decoded value, too.
    """
    if not restricts:

        def grants(inspection: Inspection) -> bool:
            if not test(inspection.path):
                return False
            readings = inspection.readings
            return readings is None or all(map(test, readings.paths))

        return grants

    on_decoded = decoded_test or test

    def holds(inspection: Inspection) -> bool:
        if test(inspection.path):
            return True
        readings = inspection.readings
        return readings is not None and (any(map(test, readings.paths)) or on_decoded(readings.decoded))

    return holds


def host_rule(test: TextTest, *, restricts: bool) -> InspectionTest:
    """`test` on ``:authority``, in lower case and without trailing dot; a rule that restricts holds without the port, too.

    Where nobody knows the host (gRPC's servers do not tell), a rule that restricts holds, and one that grants does not.
    """
    if not restricts:
        return lambda inspection: inspection.host != "" and test(inspection.host)
    return lambda inspection: inspection.host == "" or test(inspection.host) or test(inspection.authority)
