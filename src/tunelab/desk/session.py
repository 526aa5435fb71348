"""Who may ask what is not for everybody: the browser that was opened with the printed token."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from tunelab.serving.refusal import Refusal

__all__ = ["Session", "refuse_other_origins"]


@dataclass(frozen=True, slots=True)
class Session:
    """A server's token. `port`: part of the cookie's name, as cookies do not tell ports apart."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token."""
        return f"tunelab-{self.port}"

    def fits(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def keep(self, response: Response) -> None:
        """Have the browser send the token from now on: to this server alone, from its own page."""
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")

    def has_opened(self, request: Request) -> bool:
        """Whether a request brings the token."""
        return self.fits(request.cookies.get(self.cookie, ""))

    def check(self, request: Request) -> None:
        """Raise Refusal for a request that does not bring the token."""
        if not self.has_opened(request):
            raise Refusal(
                "unauthorized",
                "This is for the browser that was opened with the link that the server printed "
                "(it ends in ?token=...). Open that link, or paste it here.",
            )


def refuse_other_origins(request: Request) -> None:
    """Raise Refusal for what a page of another address asks."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    try:
        strange = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    except ValueError:  # no address
        strange = True
    if strange or site not in {"none", "same-origin"}:
        raise Refusal("forbidden", "Asked by a page of another address.")
