"""What a service's workers on one machine share of their identity: a folder that only their user can read.

One file with chain, key and roots together, replaced as a whole, so that no reader sees a key without its certificate; and a
lock, so that of several workers one redeems the token, which can be redeemed only once.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.errors import IssuingFailed
from meshlib.runtime.identity.material import Material, PrivateKey

VERSION: Final = 1
_POLL: Final = 0.05  # seconds between looks at a lock that somebody else has


class IdentityFolder:
    """Made with mode 0700 if it is not there.  Raises IssuingFailed saying what is wrong with it."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file = self._folder / "identity.json"
        self._lock = self._folder / "lock"
        self._held: int | None = None  # descriptor of the lock

    @contextmanager
    def locked(self, *, give_up: Callable[[], bool]) -> Iterator[None]:
        """Alone among all processes that use this folder.  Waits for the others until `give_up()`."""
        self._prepare()
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IssuingFailed(f"identity_dir={self._folder}: {error}") from error
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if give_up():
                        raise IssuingFailed(f"identity_dir={self._folder}: another process holds its lock") from None
                    time.sleep(_POLL)
                except OSError as error:
                    raise IssuingFailed(f"identity_dir={self._folder} cannot be locked: {error}") from error
            self._held = descriptor
            yield
        finally:
            self._held = None
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for a child, too, that was forked meanwhile
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: the lock is the parent's, and must not outlive it here."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def read(self) -> Material | None:
        """What was kept; None: nothing, or nothing that can be read.  It may have ended."""
        try:
            if self._file.stat().st_mode & 0o077:
                raise IssuingFailed(f"{self._file} can be read by others than its owner: chmod 600, or remove it")
            kept = json.loads(self._file.read_text())
            roots = {str(domain): pem.certificates(str(text)) for domain, text in kept["roots"].items()}
            key = PrivateKey.parse(str(kept["key"]).encode())
            return Material.of(pem.certificates(str(kept["chain"])), key, TrustBundles(roots))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # cut short, or of a version to come: as good as nothing, and replaced by what comes next

    def write(self, material: Material) -> None:
        """Keep it.  Call with the lock."""
        temporary = self._folder / f".identity-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(_written(material))  # in no variable, which error reporters would send along
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise IssuingFailed(f"identity_dir={self._folder}: {error}") from error

    def _prepare(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._folder.stat()
        except OSError as error:
            raise IssuingFailed(f"identity_dir={self._folder}: {error}") from error
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise IssuingFailed(
                f"identity_dir={self._folder}: others may write there; expected a folder of this user, mode 0700"
            )


def _written(material: Material) -> str:
    content = {
        "version": VERSION,
        "chain": material.chain_pem.decode(),
        "key": material.key.pem().decode(),
        "roots": {domain: pem.encode(roots).decode() for domain, roots in material.roots.roots.items()},
    }
    return json.dumps(content)
