"""API keys: who calls, and what they may do.

Keys are kept as digests and compared in constant time, all of them each time, so that neither memory dumps nor
response times give one away.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from tercet.errors import AuthenticationError, ForbiddenError, InvalidInputError
from tercet_server.endpoint import Headers, Scope
from tercet_server.settings import Settings

_SHORTEST_KEY = 8
_HEADERS = ("x-api-key", "api-key")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's digest and what it allows."""

    digest: bytes
    admin: bool

    @classmethod
    def parse(cls, entry: str) -> ApiKey:
        """Return the key of 'read KEY', 'admin KEY' or 'KEY'.

        Raises:
            InvalidInputError: another form, or a key that is short enough to guess; the key is not in the message.
        """
        *scope, key = entry.split()
        if scope not in ([], ["read"], ["admin"]):
            raise InvalidInputError("an API key is given as 'read KEY', 'admin KEY' or KEY alone")
        if len(key) < _SHORTEST_KEY:
            raise InvalidInputError(f"an API key has at least {_SHORTEST_KEY} characters; one of yours has {len(key)}")
        return cls(sha256(key.encode()).digest(), scope == ["admin"])


class Keys:
    """The keys that are accepted; with none, everybody may do everything."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._keys: Sequence[ApiKey] = tuple(ApiKey.parse(entry) for entry in entries)

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Return the keys of the settings and of their key file, where empty lines and `#` lines are skipped.

        Raises:
            InvalidInputError: the file cannot be read, holds no key, or a key is malformed.
        """
        path = settings.api_key_file
        if path is None:
            return cls(settings.api_keys)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"api_key_file {path} cannot be read: {type(error).__name__}") from None
        entries = [line for line in lines if line and not line.startswith("#")]
        if not entries:
            raise InvalidInputError(f"api_key_file {path} holds no key; remove the setting to serve without keys")
        return cls((*settings.api_keys, *entries))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, key: str | None, scope: Scope) -> None:
        """Raise unless the key allows the scope.

        Raises:
            AuthenticationError: no key, or an unknown one.
            ForbiddenError: a read key where an admin key is needed.
        """
        if not self._keys or scope == "public":
            return
        if key is None:
            raise AuthenticationError("an API key is needed: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = [known for known in self._keys if hmac.compare_digest(known.digest, digest)]
        if not found:
            raise AuthenticationError("the API key is not known here")
        if scope == "admin" and not any(known.admin for known in found):
            raise ForbiddenError("this API key may read; this needs an admin key")


def key_in(headers: Headers) -> str | None:
    """Return the API key that a request carries: a bearer token, a header of its own, or the user part of its URL."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    named = next((headers[name] for name in _HEADERS if headers.get(name)), None)
    return named or (_basic_key(token.strip()) if scheme.lower() == "basic" else None)


def _basic_key(token: str) -> str | None:
    """Return the password, or else the user, of basic authentication, which is what clients make of KEY@host."""
    try:
        user, _, password = b64decode(token, validate=True).decode().partition(":")
    except ValueError:
        return None
    return password or user or None


def check_origin(headers: Headers, allowed: Sequence[str]) -> None:
    """Raise if a web page of another site calls: browsers let any page send simple requests to a local server.

    Raises:
        ForbiddenError: the page's origin is neither this server nor one of `allowed`.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if urlsplit(origin).netloc != headers.get("host"):
        raise ForbiddenError(f"pages of {origin} may not call this server; its cors_origins would have to name them")
