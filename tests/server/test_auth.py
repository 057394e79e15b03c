"""API keys: which are accepted, for what, and that they are never shown."""

import pytest
from starlette.datastructures import Headers

from tercet.errors import AuthenticationError, ForbiddenError, InvalidInputError
from tercet_server.auth import Keys, check_origin, key_in
from tercet_server.settings import Settings

READ, ADMIN = "reader-key-1", "admin-key-12"
KEYS = Keys([READ, f"admin {ADMIN}", "read another-reader"])


@pytest.mark.parametrize("key", [READ, ADMIN, "another-reader"])
def test_known_keys_may_read(key):
    KEYS.check(key, "read")


def test_only_admin_keys_may_do_everything():
    KEYS.check(ADMIN, "admin")
    with pytest.raises(ForbiddenError, match="admin key"):
        KEYS.check(READ, "admin")


@pytest.mark.parametrize("key", [None, "", "reader-key-", "reader-key-11", "READER-KEY-1", "ключ", "\udcff"])
def test_others_may_nothing_but_what_is_public(key):
    KEYS.check(key, "public")
    for scope in ("read", "admin"):
        with pytest.raises(AuthenticationError) as caught:
            KEYS.check(key, scope)
        assert not key or key not in caught.value.message


def test_without_keys_everybody_may_do_everything():
    assert not Keys([])
    Keys([]).check(None, "admin")


def test_keys_come_from_settings_and_file_together(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\nadmin {ADMIN}\n  from-the-file  \n")
    keys = Keys.of(Settings(api_keys=(READ,), api_key_file=path))
    keys.check(ADMIN, "admin")
    keys.check("from-the-file", "read")
    keys.check(READ, "read")


@pytest.mark.parametrize("text", ["write some-long-key", "short", "read admin key-of-some-length", "# none\n"])
def test_wrong_key_files_are_refused_without_showing_a_key(tmp_path, text):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        Keys.of(Settings(api_key_file=path))
    assert "some-long-key" not in caught.value.message
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Keys.of(Settings(api_key_file=tmp_path / "missing"))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer k1"}, "k1"),
        ({"Authorization": "BEARER  k1 "}, "k1"),
        ({"X-API-Key": "k2"}, "k2"),
        ({"api-key": "k3"}, "k3"),
        ({"Authorization": "Basic k1", "X-API-Key": "k2"}, "k2"),
        ({"Authorization": "Basic dXNlcjprMQ=="}, "k1"),
        ({"Authorization": "Basic azE6"}, "k1"),
        ({"Authorization": "Basic Og=="}, None),
        ({"Authorization": "Basic k1"}, None),
        ({"Authorization": "Bearer"}, None),
        ({}, None),
    ],
)
def test_keys_are_read_as_clients_send_them(headers, key):
    assert key_in(Headers(headers)) == key


def test_pages_of_other_sites_may_not_call():
    own = {"host": "localhost:8080"}
    check_origin(Headers(own), ())
    check_origin(Headers(own | {"origin": "http://localhost:8080"}), ())
    check_origin(Headers(own | {"origin": "https://app.example"}), ("https://app.example",))
    check_origin(Headers(own | {"origin": "https://app.example"}), ("*",))
    for origin in ("https://evil.example", "null", "http://localhost:8081"):
        with pytest.raises(ForbiddenError, match="cors_origins"):
            check_origin(Headers(own | {"origin": origin}), ("https://app.example",))


def test_keys_are_not_kept():
    assert all(secret not in repr(vars(KEYS)) for secret in (READ, ADMIN))
