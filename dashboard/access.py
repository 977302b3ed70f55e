"""Who may see the dashboard: everybody who reaches it, or whom an identity provider vouches for and a list names.

    # .streamlit/secrets.toml, or a file that the option secrets.files names
    [auth]                                  # Streamlit's own table: the provider, by OpenID Connect
    redirect_uri = "https://lakehouse.example.com/oauth2callback"
    cookie_secret = "…"
    client_id = "…"
    client_secret = "…"
    server_metadata_url = "https://login.example.com/.well-known/openid-configuration"

    [access]                                # who of those it knows
    emails = ["ada@example.com"]
    domains = ["example.org"]               # of verified addresses
    groups = ["data-platform"]              # in the token's claim `groups`
    max_age_hours = 12

Without the table `auth` nobody is asked. With it, a list that is missing, empty or cannot be read admits nobody.
"""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_AGE_HOURS = 12.0
"""Streamlit's cookie alone would be good for 30 days."""
_CLOCK_SLACK_S = 300.0


@dataclass(frozen=True)
class Access:
    """Who is admitted once the provider has vouched for them.

    Attributes:
        emails: addresses, in lower case.
        domains: of addresses, in lower case.
        groups: any of these in the claim `groups`.
        max_age_s: how long after the login another one is asked for.
        problem: why nobody can be admitted; None where the list can be read.
    """

    emails: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    max_age_s: float = _MAX_AGE_HOURS * 3_600
    problem: str | None = None

    @classmethod
    def parse(cls, text: str) -> Access | None:
        """What a secrets file says; None where it asks for no login."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            # Its text may hold secrets, and so may what is wrong with it.
            return cls(problem="the file with the login's settings is not TOML")
        if "auth" not in table:
            return None
        listed: Mapping[str, Any] = table.get("access", {})
        try:
            found = cls(
                emails=_lowered(listed.get("emails", [])),
                domains=_lowered(listed.get("domains", [])),
                groups=frozenset(map(str, listed.get("groups", []))),
                max_age_s=float(listed.get("max_age_hours", _MAX_AGE_HOURS)) * 3_600,
            )
        except (AttributeError, TypeError, ValueError):
            return cls(problem="the table `access` cannot be read")
        if not (found.emails or found.domains or found.groups):
            return cls(problem="the table `access` names nobody")
        return found

    def refusal(self, claims: Mapping[str, Any], now_s: float) -> str | None:
        """Why somebody with these claims of a valid token is not admitted; None where they are."""
        if self.problem:
            return self.problem
        issued = claims.get("iat")
        if not isinstance(issued, int | float) or not -_CLOCK_SLACK_S <= now_s - issued <= self.max_age_s:
            return "the login is too old"
        groups = claims.get("groups")
        if isinstance(groups, list | tuple) and self.groups & set(map(str, groups)):
            return None
        # An address that the provider has not verified is what somebody typed.
        email = str(claims.get("email", "")).lower() if claims.get("email_verified") is True else ""
        _, at, domain = email.rpartition("@")
        if at and (email in self.emails or domain in self.domains):
            return None
        return "this account is not on the list"


def _lowered(values: Iterable[str]) -> frozenset[str]:
    if isinstance(values, str):
        raise TypeError
    return frozenset(value.lower() for value in values)


def configured() -> Access | None:
    """Who is admitted by the secrets files of this server; None where no file asks for a login."""
    found = None
    for name in st.get_option("secrets.files") or ():
        path = Path(name)
        if path.is_file():
            try:
                found = Access.parse(path.read_text()) or found
            except (OSError, UnicodeDecodeError):
                found = Access(problem="the file with the login's settings cannot be read")
    return found


def admitted() -> bool:
    """Whether this session may see the pages; draws the way in, or the refusal, where it may not."""
    access = configured()
    if access is None:
        return True
    if not st.user.get("is_logged_in"):
        st.title("Live")
        st.write("Who may see this page is known to your organisation's login.")
        if access.problem:
            st.error(f"Nobody can be let in: {access.problem}.")
        else:
            st.button("Log in", on_click=st.login, type="primary")
        return False
    refusal = access.refusal(st.user.to_dict(), time.time())
    if refusal is None:
        return True
    st.error(f"You are not let in: {refusal}.")
    st.button("Log out", on_click=st.logout)
    return False
