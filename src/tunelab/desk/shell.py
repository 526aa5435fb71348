"""The page itself: one file, which runs what was built into it and loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tunelab.desk.desk import Desk

__all__ = ["page_or_sign_of_life"]

_PAGE = Path(__file__).with_name("page.html")  # built from web/


async def page_or_sign_of_life(desk: Desk, request: Request) -> Response:
    """The page for browsers, and for all others a sign of life. A token that fits is kept."""
    if "text/html" not in request.headers.get("accept", ""):
        return Response(status_code=200)
    token = request.query_params.get("token")
    if token is None:
        content, headers = _page()
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)
    to_page = RedirectResponse("./", status_code=303, headers={"referrer-policy": "no-referrer"})
    if desk.session.fits(token):
        desk.session.keep(to_page)
    return to_page


@cache
def _page() -> tuple[bytes, dict[str, str]]:
    content = _PAGE.read_bytes()
    policy = (
        f"default-src 'none'; script-src {_hashes(content, 'script')}; "
        f"style-src {_hashes(content, 'style')}; connect-src 'self'; frame-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _hashes(content: bytes, tag: str) -> str:
    inside = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>".encode(), content, re.DOTALL)
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in inside
    )
