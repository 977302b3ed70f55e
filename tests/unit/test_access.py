"""Who is let in, what the server tells browsers, and that a broken list opens nothing and tells nothing."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import access
from dashboard.access import Access
from dashboard.headers import HEADERS, Headers

PROJECT = Path(__file__).parent.parent.parent
NOW = 1_800_000_000.0
AUTH = '[auth]\nclient_id = "x"\nclient_secret = "canary-of-the-login"\n'
LIST = '[access]\nemails = ["Ada@Example.com"]\ndomains = ["example.org"]\ngroups = ["data"]\n'
FRESH = {"iat": NOW - 60, "email_verified": True}


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        (FRESH | {"email": "ada@example.com"}, None),
        (FRESH | {"email": "someone@example.org"}, None),
        (FRESH | {"email": "x@elsewhere.com", "groups": ["other", "data"]}, None),
        (FRESH | {"email": "x@elsewhere.com"}, "not on the list"),
        (FRESH | {"email": "x@evil-example.org"}, "not on the list"),
        (FRESH | {"email": "example.org"}, "not on the list"),
        (FRESH | {"email": ""}, "not on the list"),
        (FRESH | {}, "not on the list"),
        (FRESH | {"email": "ada@example.com", "email_verified": False}, "not on the list"),
        (FRESH | {"email": "ada@example.com", "email_verified": "true"}, "not on the list"),
        (FRESH | {"email": "x@elsewhere.com", "groups": "data"}, "not on the list"),
        ({"email": "ada@example.com", "email_verified": True}, "too old"),
        (FRESH | {"email": "ada@example.com", "iat": NOW - 13 * 3_600}, "too old"),
        (FRESH | {"email": "ada@example.com", "iat": NOW + 3_600}, "too old"),
        (FRESH | {"email": "ada@example.com", "iat": "now"}, "too old"),
    ],
)
def test_only_who_is_on_the_list_is_let_in(claims: dict[str, Any], refusal: str | None) -> None:
    found = Access.parse(AUTH + LIST)
    assert found is not None
    said = found.refusal(claims, NOW)
    assert (said is None) if refusal is None else (said is not None and refusal in said)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (AUTH, "names nobody"),
        (AUTH + "[access]\n", "names nobody"),
        (AUTH + '[access]\nemails = "ada@example.com"\n', "cannot be read"),
        (AUTH + "[access]\nemails = [1]\n", "cannot be read"),
        ('access = "everyone"\n' + AUTH, "cannot be read"),
        (AUTH + LIST + 'max_age_hours = "long"\n', "cannot be read"),
        ("[auth\n", "not TOML"),
    ],
)
def test_a_list_that_is_broken_admits_nobody(text: str, problem: str) -> None:
    found = Access.parse(text)
    assert found is not None
    assert problem in str(found.problem)
    assert found.refusal(FRESH | {"email": "ada@example.com", "groups": ["data"]}, NOW) == found.problem
    assert "canary" not in str(found.problem)


def test_without_a_login_nobody_is_asked() -> None:
    assert Access.parse("[other]\nx = 1\n") is None


def page() -> None:
    import streamlit as st

    from dashboard.access import admitted

    if admitted():
        st.write("the tables")


@pytest.mark.parametrize(("text", "shown"), [(None, True), (AUTH + LIST, False), (AUTH, False), ("[auth\n", False)])
def test_a_session_without_a_login_sees_the_way_in_and_nothing_else(
    *, text: str | None, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets.toml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(access.st, "get_option", lambda name: [str(file)] if name == "secrets.files" else None)
    monkeypatch.setattr(access.st, "user", {})
    app = AppTest.from_function(page).run(timeout=60)
    assert not app.exception
    assert ("the tables" in [element.value for element in app.markdown]) is shown
    if text == AUTH + LIST:
        assert [button.label for button in app.button] == ["Log in"]


def test_every_answer_has_the_headers() -> None:
    sent: list[dict[str, Any]] = []

    async def inner(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def ask() -> None:
        await Headers(inner)({"type": "http"}, None, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert told == {name.lower(): value for name, value in HEADERS.items()}
    assert sent[1]["body"] == b"hello"


def test_the_server_tells_no_traceback_and_answers_to_its_own_names() -> None:
    settings = tomllib.loads((PROJECT / ".streamlit" / "config.toml").read_text())
    assert settings["client"]["showErrorDetails"] == "none"
    server = settings["server"]
    assert server["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert server["address"] == "127.0.0.1"
    assert server["enableCORS"] is True
    assert server["enableXsrfProtection"] is True
    assert settings["browser"]["gatherUsageStats"] is False
    assert st.get_option("server.enableStaticServing") is False
