"""Every code that a finding can have: what it means and what to do.  docs/configuration.md shows this table."""

from __future__ import annotations

from meshlib_control.config.code import ERROR, INFO, WARNING, Code
from meshlib_control.config.rule_codes import RULES

_ROWS = (
    # Documents: the text, and what is around `spec`.
    Code(
        "MSH0001", ERROR, "not YAML", "The text cannot be parsed; its other documents can.", "Correct the syntax at the place."
    ),
    Code("MSH0002", ERROR, "too large", "Size, depth or number of values exceed what is accepted.", "Split the file."),
    Code(
        "MSH0003", ERROR, "duplicate key", "A mapping has a key twice; one of the values would be lost.", "Remove one of them."
    ),
    Code(
        "MSH0004",
        ERROR,
        "ambiguous or unusable YAML",
        "A value that YAML versions read differently, a tag, or a key that is not a name.",
        "Quote the value, or write it plainly.",
    ),
    Code("MSH0005", ERROR, "not a resource", "The document has no apiVersion, kind, metadata or spec.", "Add what is missing."),
    Code(
        "MSH0006",
        ERROR,
        "unknown kind",
        "This version has no such kind.",
        "Remove the document, or use one of the known kinds.",
    ),
    Code("MSH0007", INFO, "Kubernetes kind", "A Kubernetes resource in the same file. It is passed over.", "Nothing."),
    Code(
        "MSH0008",
        ERROR,
        "unknown apiVersion",
        "The kind exists, but not in this API group and version.",
        "Use the version named.",
    ),
    Code(
        "MSH0009", ERROR, "bad metadata", "A name, namespace, label or annotation is malformed.", "Write it as Kubernetes asks."
    ),
    Code("MSH0010", ERROR, "duplicate resource", "The same kind, namespace and name come twice.", "Remove or rename one."),
    # Fields: what the schema says.
    Code("MSH0101", ERROR, "unknown field", "The kind has no such field.", "Correct the name; see the suggestion."),
    Code("MSH0102", ERROR, "wrong type", "The value is not of the field's type.", "Write a value of the type named."),
    Code("MSH0103", ERROR, "missing field", "A field that must be there is not.", "Add it."),
    Code(
        "MSH0104",
        ERROR,
        "unknown value",
        "The field takes one of a few words, and this is not one.",
        "Use one of those listed.",
    ),
    Code(
        "MSH0105", ERROR, "out of range", "A number, length or count is outside of its limits.", "Stay within the limits named."
    ),
    Code("MSH0106", ERROR, "malformed duration", "Not a duration.", "Write a number with a unit: 1.5s, 10ms, 1h."),
    Code("MSH0107", ERROR, "fields exclude each other", "At most one of several fields may be set.", "Remove the others."),
    Code(
        "MSH0108",
        ERROR,
        "not supported by this version",
        "Valid in Istio, but this version does not execute it. It is refused rather than ignored.",
        "Remove it, or do what the message says instead.",
    ),
    Code(
        "MSH0109",
        WARNING,
        "empty list item",
        "A list item without a value counts as one with all defaults.",
        "Remove the dash.",
    ),
    # Rules: what a kind means.
    Code("MSH0121", ERROR, "bad host", "Not a host name, wildcard or address that may stand here.", "Write a DNS name."),
    Code(
        "MSH0122", ERROR, "duplicate host", "A host is named twice, or covered by a wildcard of the same list.", "Remove one."
    ),
    Code(
        "MSH0123",
        ERROR,
        "bad expression",
        "A regular expression is empty, too long or not RE2.",
        "Correct it; RE2 has no lookaround.",
    ),
    Code("MSH0124", ERROR, "bad condition", "A match can never be evaluated as written.", "Correct or remove it."),
    Code("MSH0125", ERROR, "bad port", "Not a port from 1 to 65535, or used twice.", "Correct the number."),
    Code("MSH0126", ERROR, "bad header", "Not the name or value of an HTTP header.", "Correct it."),
    Code("MSH0127", ERROR, "bad retry policy", "The retry policy contradicts itself or has unknown conditions.", "Correct it."),
    Code(
        "MSH0128",
        ERROR,
        "bad exportTo",
        "Neither `.`, `*`, `~` nor the name of a namespace, or a bad combination.",
        "Correct it.",
    ),
    Code("MSH0129", ERROR, "bad label", "A label's key or value is malformed.", "Write it as Kubernetes asks."),
    Code(
        "MSH0130", ERROR, "bad gateway", "Not the name of a gateway, or a rule that needs one.", "Use `mesh`, or leave it out."
    ),
    Code(
        "MSH0131",
        ERROR,
        "no single action",
        "A route must do one thing: route, redirect, answer or delegate.",
        "Keep exactly one.",
    ),
    Code("MSH0132", ERROR, "bad weight", "Weights are negative or add up to nothing.", "Give positive weights."),
    Code("MSH0133", ERROR, "bad duration", "A duration is below or finer than a millisecond.", "Use whole milliseconds."),
    Code("MSH0134", ERROR, "bad endpoint", "An endpoint's address or ports do not fit the resolution.", "Correct it."),
    Code("MSH0135", ERROR, "bad address", "Not an IP address or network.", "Correct it."),
    Code("MSH0136", ERROR, "bad resolution", "The resolution does not go with the other fields.", "Correct one of them."),
    Code("MSH0137", ERROR, "bad policy", "A traffic policy contradicts itself or has no effect at all.", "Correct it."),
    Code("MSH0138", ERROR, "bad subset", "A subset has no name, a malformed one, or one that is taken.", "Correct it."),
    Code("MSH0139", ERROR, "bad percentage", "A percentage is outside of its limits.", "Stay within the limits named."),
    Code("MSH0140", ERROR, "bad status", "Not a status that can be answered.", "Use the range named."),
    Code("MSH0141", ERROR, "bad rewrite", "A rewrite contradicts itself or another field.", "Correct it."),
    Code("MSH0142", ERROR, "bad selector", "A selector of workloads is malformed.", "Correct it."),
    Code(
        "MSH0143",
        ERROR,
        "empty rule",
        "The resource says nothing, or a value that is needed is empty.",
        "Say what it should do.",
    ),
    Code(
        "MSH0144",
        ERROR,
        "bad trust setting",
        "Not a trust domain, or not the certificates of its authorities.",
        "Correct it; a trust domain is written as in a SPIFFE ID, roots are public certificates in PEM.",
    ),
    Code("MSH0150", WARNING, "superseded", "The field still works, but has been replaced.", "Use the field named."),
    Code(
        "MSH0151",
        WARNING,
        "without effect",
        "Istio accepts this and does nothing with it, and so does this mesh.",
        "Remove it.",
    ),
    Code(
        "MSH0160",
        ERROR,
        "not with this action",
        "A field or annotation that the policy's action does not look at.",
        "Remove it, or change the action.",
    ),
    Code(
        "MSH0161",
        ERROR,
        "bad extension provider",
        "An external authorizer that cannot be asked as it is written. Policies that name it refuse what they match.",
        "Correct it.",
    ),
    Code("MSH0162", ERROR, "bad registration grant", "It names nobody or nothing, or not by a name.", "Correct it."),
    Code(
        "MSH0163",
        ERROR,
        "bad keys",
        "A JSON Web Key Set cannot be read, or its address is none.",
        "Correct it; an address starts with https://.",
    ),
    # References: what one resource says of others.
    Code(
        "MSH0201",
        WARNING,
        "unknown host",
        "No service of that name is known. An error when the catalog was looked at, since calls would fail.",
        "Correct the name, or register the service.",
    ),
    Code(
        "MSH0202",
        ERROR,
        "unknown subset",
        "No DestinationRule that this route can see defines the subset: its calls would fail.",
        "Apply a DestinationRule with the subset together with, or before, the route.",
    ),
    Code(
        "MSH0203",
        ERROR,
        "unknown port",
        "The host has no such port, or has several and none is chosen.",
        "Name one of its ports.",
    ),
    Code(
        "MSH0204",
        ERROR,
        "host claimed twice",
        "Several VirtualServices name the host for the same callers: the oldest holds, the others are not used.",
        "Put the rules into one VirtualService.",
    ),
    Code(
        "MSH0205",
        WARNING,
        "several DestinationRules",
        "Several DestinationRules name the host: the oldest gives the policy, subsets are joined by name.",
        "Put them into one DestinationRule.",
    ),
    Code(
        "MSH0206",
        WARNING,
        "hidden by exportTo",
        "What is referred to exists, but is not exported to here.",
        "Extend its exportTo.",
    ),
    Code(
        "MSH0207",
        WARNING,
        "empty subset",
        "No known instance has the subset's labels: it would answer 503.",
        "Correct the labels.",
    ),
    # Effects: what works differently than it looks.
    Code("MSH0301", WARNING, "unreachable rule", "An earlier rule always matches first.", "Move the catch-all to the end."),
    Code("MSH0302", WARNING, "duplicate match", "An earlier rule has the same condition.", "Remove one of them."),
    Code("MSH0303", INFO, "weights do not add up to 100", "They are relative to their sum.", "Nothing, if that is meant."),
    Code(
        "MSH0304",
        INFO,
        "timeout is not sent to grpcio",
        "gRPC clients that use xds:/// themselves do not get this timeout: their timers fire one to two seconds early.",
        "Give such clients a deadline of their own; all other clients honour it.",
    ),
    Code(
        "MSH0305",
        WARNING,
        "perTryTimeout without effect",
        "An attempt may take as long as, or longer than, the whole call.",
        "Make `timeout` larger than `perTryTimeout`.",
    ),
    Code(
        "MSH0306",
        WARNING,
        "header condition is ignored",
        "Istio ignores conditions on headers named uri, scheme, method and authority.",
        "Use the match field of that name.",
    ),
    Code(
        "MSH0307",
        WARNING,
        "routes of another namespace's service",
        "Callers in other namespaces than the VirtualService's own are routed by it to a service that is not its own.",
        'Limit `exportTo` to ".", or put it into the namespace of the service or into the root namespace.',
    ),
    # mTLS: both ends of a connection have to mean the same.
    Code(
        "MSH0311",
        WARNING,
        "plaintext towards STRICT",
        "A DestinationRule has callers send plaintext or TLS of another kind to workloads that accept mTLS only.",
        "Remove `tls` from the DestinationRule, or relax the PeerAuthentication.",
    ),
    Code(
        "MSH0312",
        WARNING,
        "mTLS towards plaintext",
        "A DestinationRule has callers use mTLS to workloads that do not speak it.",
        "Remove `tls` from the DestinationRule: callers then use mTLS where it is spoken.",
    ),
    Code(
        "MSH0313",
        WARNING,
        "plaintext instance under STRICT",
        "An instance does not speak mTLS, although its PeerAuthentication is STRICT: calls reach it unprotected.",
        "Start it with an identity, or exempt it by a PeerAuthentication of its own.",
    ),
    Code(
        "MSH0314",
        WARNING,
        "PeerAuthentication without effect",
        "It cannot hold for any workload, or an older one of the same level holds.",
        "Correct the selector, or put them into one resource.",
    ),
    Code(
        "MSH0315",
        INFO,
        "TLS that gRPC's own clients cannot do",
        "gRPC clients that use xds:/// themselves have no files of certificates: they do not get this cluster and calls fail.",
        "Call the host through meshlib, or with TLS of the application's own.",
    ),
    Code(
        "MSH0316",
        WARNING,
        "no key for tokens",
        "There is no key to verify tokens with, so all of them are refused.",
        "Give `jwksUri`, or `jwks` with a key of type RSA, EC, OKP (Ed25519) or oct.",
    ),
    Code(
        "MSH0317",
        WARNING,
        "private key in the configuration",
        "`jwks` holds the private part of a key. It is not handed out, but whoever reads the configuration can sign tokens.",
        "Replace the key, and give its public part only.",
    ),
    # Balancing: balancers that do less, or something else, than they look like.
    Code(
        "MSH0351",
        WARNING,
        "locality without outlier detection",
        "Priorities by locality or labels are used only where failing endpoints are noticed, as in Istio.",
        "Add `outlierDetection` to the same policy; an empty one has Istio's defaults.",
    ),
    Code(
        "MSH0352",
        INFO,
        "one address for all",
        "`useSourceIp` hashes the address of the calling process, which is the same for all of its requests.",
        "Hash what distinguishes requests, such as a header; nothing, if each process should keep to one endpoint.",
    ),
    Code(
        "MSH0353",
        INFO,
        "hash that gRPC's own clients cannot do",
        "gRPC clients that use xds:/// themselves hash headers only.",
        "Hash a header, or call through meshlib.",
    ),
    Code(
        "MSH0354",
        INFO,
        "consistent hash behind a split",
        "A destination is drawn by weight first, then an endpoint of it is chosen by the hash.",
        "Match on what is hashed, so that each caller has one destination; nothing, if each destination may see all of them.",
    ),
    Code(
        "MSH0355",
        INFO,
        "outlier detection that ejects nobody of a few",
        "No more than `maxEjectionPercent` of the endpoints are ejected, 10 unless given, and of few endpoints that is none.",
        "Give a `maxEjectionPercent` that is one endpoint at least: 50 for two, 34 for three.",
    ),
    # Authorization: policies that protect less, or let in less, than they look like.
    Code(
        "MSH0321",
        WARNING,
        "policy about nobody",
        "No known workload has the labels that the AuthorizationPolicy selects, so it protects nothing.",
        "Correct the selector, or the labels of the workloads.",
    ),
    Code(
        "MSH0322",
        INFO,
        "unknown identity",
        "A policy names a namespace or trust domain that is not known here.",
        "Correct the name; nothing, if only callers are there.",
    ),
    Code(
        "MSH0323",
        ERROR,
        "authorizer that cannot be asked",
        "The extension provider of a CUSTOM policy does not exist, has no service, or is not the only one of a workload.",
        "Add it to MeshConfig's `extensionProviders`, or correct the name. Until then, what the policy matches is refused.",
    ),
    Code(
        "MSH0324",
        WARNING,
        "identity of plaintext callers",
        "A rule excludes identities where callers may have none. Here they are refused in doubt; Envoy lets them in.",
        "Make mTLS STRICT for the workloads with a PeerAuthentication.",
    ),
    Code(
        "MSH0325",
        WARNING,
        "wider on TCP",
        "A rule that does not allow asks for something of requests; on TCP ports that part is left out, and it matches more.",
        "Name the ports that it is for.",
    ),
    Code(
        "MSH0326",
        WARNING,
        "never allows on TCP",
        "A rule that allows asks for something of requests; on TCP ports it never matches.",
        "Allow connections by ports, identities and addresses in a rule of their own.",
    ),
    Code(
        "MSH0327",
        WARNING,
        "not an expression",
        "A value looks like a regular expression or a pattern, and is compared as it is.",
        "Use an asterisk at the start or the end, or a template in paths.",
    ),
    Code("MSH0328", WARNING, "condition that never holds", "No request can have this value.", "Correct it."),
    Code(
        "MSH0329",
        INFO,
        "host without port",
        "Clients send the port with the host unless it is the default one, and a host without it does not allow that.",
        "Allow the host with `:*` too.",
    ),
    Code(
        "MSH0330",
        WARNING,
        "tokens that nobody verifies",
        "A rule asks for something of a token, and no RequestAuthentication has tokens verified for these workloads.",
        "Add a RequestAuthentication.",
    ),
    Code(
        "MSH0331",
        WARNING,
        "policy for a gateway",
        "A policy with `targetRefs` is for gateways and waypoints, of which there are none here: no workload enforces it.",
        "Choose the workloads that it should protect with `selector`; nothing, if a gateway elsewhere has it.",
    ),
    # Resilience.
    Code(
        "MSH0341",
        WARNING,
        "priority that anybody can claim",
        "A rule of load shedding makes requests with certain headers more urgent, whoever sends them.",
        "Add the principals or namespaces of those who may.",
    ),
    Code(
        "MSH0342",
        WARNING,
        "several ResiliencePolicies",
        "Several policies are for the same host or workloads in one namespace: the oldest holds, the others do nothing.",
        "Put them into one policy.",
    ),
    Code(
        "MSH0343",
        WARNING,
        "policy that nobody uses",
        "A ResiliencePolicy counts only in the namespace of the caller, of the service, or in the root namespace.",
        "Move it to the namespace of the service, or of its callers.",
    ),
    Code(
        "MSH0344",
        WARNING,
        "limit by claims that nobody verifies",
        "A limit counts by a claim, and no RequestAuthentication has tokens verified for these workloads.",
        "Add a RequestAuthentication.",
    ),
    Code(
        "MSH0345",
        INFO,
        "limit that can be got around",
        "A limit counts only by what the sender of a request chooses, such as a header: another value is another bucket.",
        "Add a limit by CALLER, REMOTE_ADDRESS or a claim, or one for all requests together.",
    ),
    *RULES,
    # Sidecars: what they keep from workloads.
    Code(
        "MSH0371",
        WARNING,
        "Sidecar without effect",
        "An older one is for the same workloads. One holds, as a whole; nothing is joined.",
        "Put them into one resource, or correct the workloadSelector.",
    ),
    Code(
        "MSH0372",
        WARNING,
        "nobody's host",
        "An entry of a Sidecar's egress covers no service: nothing can be called by it.",
        "Correct the namespace or the name; hosts are full names.",
    ),
)

CODES = {row.id: row for row in _ROWS}

REFUSES = frozenset(row.id for row in _ROWS if row.severity is ERROR and row.id < "MSH0200") | {"MSH0202"}
"""Findings with these codes keep a resource from being stored, if they are errors; all others inform."""

NOT_SUPPORTED = "MSH0108"
"""Valid in Istio.  Agreement with Istio's validator is judged without this code."""
