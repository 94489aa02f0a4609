"""From a claim of a token to a part of an identity, by an exact template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib_control.ca.names import NAMESPACE, SERVICE_ACCOUNT

PLACEHOLDERS = {"namespace": NAMESPACE.pattern, "service_account": SERVICE_ACCOUNT.pattern}
"""What each may stand for.  Neither can hold a ":" or "/", so no claim can smuggle in another segment."""


def compiled(template: str) -> re.Pattern[str]:
    """Everything but the placeholders stands for itself.  Raises ValueError."""
    parts = re.split(r"\{([^{}]*)\}", template)
    literal, names = parts[::2], parts[1::2]
    if any("{" in part or "}" in part for part in literal):
        raise ValueError("a brace without its other one")
    for name in names:
        if name not in PLACEHOLDERS:
            raise ValueError(f"{{{name}}} is unknown; expected {{namespace}} or {{service_account}}")
        if names.count(name) > 1:
            raise ValueError(f"{{{name}}} is there twice")
    if not all(re.search(r"[^a-z0-9.-]", between) for between in literal[1:-1]):
        raise ValueError("placeholders have to be kept apart by text that no name can hold, such as ':' or '/'")
    pattern = re.escape(literal[0])
    for name, after in zip(names, literal[1:], strict=True):
        pattern += f"(?P<{name}>{PLACEHOLDERS[name]})" + re.escape(after)
    return re.compile(pattern)


@dataclass(frozen=True, slots=True)
class ClaimPattern:
    """`claim`: a name, or a JSON pointer when it begins with "/"; `template`: text with ``{namespace}`` and the like."""

    claim: str
    template: str
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", compiled(self.template))

    def value_in(self, claims: Mapping[str, object]) -> object:
        """The claim; None when it is not there."""
        if not self.claim.startswith("/"):
            return claims.get(self.claim)
        found: object = claims
        for part in self.claim[1:].split("/"):
            if not isinstance(found, Mapping):
                return None
            found = found.get(part.replace("~1", "/").replace("~0", "~"))
        return found
