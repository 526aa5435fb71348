"""A client of servers with OpenAI's chat completions: one question, one answer, kept by content.

Standard library alone. A redirect is not followed: what is asked goes to the address that was named
and to no other. The key is read from the environment when it is sent, and stands in no message.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tunelab.core import cache
from tunelab.core.errors import ConfigError, TrialError
from tunelab.core.words import short

__all__ = [
    "KEY_VARIABLE",
    "Reply",
    "Endpoint",
    "endpoint_fault",
]


KEY_VARIABLE = "TUNELAB_LLM_KEY"
Message = Mapping[str, str]
# Changing what is kept of an answer must change this.
_REPLY_VERSION = 1
_LONGEST_WAIT = 60.0
_LONGEST_REPLY = 4_000_000
_ASKED_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def endpoint_fault(url: str) -> str | None:
    """What was expected of an address in the place of this; None where it is one."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is none
        fits = False
    if not fits or any(c.isspace() or not c.isprintable() for c in url):
        return "an address such as http://127.0.0.1:8000/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return f"an address without a password or query (a key belongs in {KEY_VARIABLE})"
    return None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said, how long that took, and the tokens that it counted."""

    text: str
    seconds: float
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a `model` answers, at `url` + /chat/completions; `tries` of at most `timeout` seconds.

    `most_tokens` of an answer.
    """

    url: str
    model: str
    most_tokens: int = 32
    timeout: float = 60.0
    tries: int = 5

    def ask(self, messages: Sequence[Message]) -> Reply:
        """The answer that is kept, or the server's. Raises TrialError, a line, where there is none.

        What asks to wait, fails or does not answer is asked again, later each time, or as long
        after as it says (Retry-After).
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": self.most_tokens,
        }
        text = json.dumps([_REPLY_VERSION, self.url, body], sort_keys=True)
        place = (
            cache.folder() / "answers" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        )
        known = cache.kept_json(place)
        if known is not None:
            return Reply(**known)
        answer = self._asked(json.dumps(body).encode())
        cache.keep_json(place, {n: getattr(answer, n) for n in Reply.__slots__}, bounded=False)
        return answer

    def _asked(self, body: bytes) -> Reply:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if key := _key_for(self.url):
            headers["authorization"] = f"Bearer {key}"
        why = ""
        for attempt in range(self.tries):
            started = time.perf_counter()
            wait = float(min(2**attempt, _LONGEST_WAIT))
            try:
                status, said, after = self._post(body, headers)
            except (OSError, http.client.HTTPException) as e:
                why = f"did not answer ({_reason(e)})"
            else:
                if status == 200:
                    return _reply_in(self.url, said, time.perf_counter() - started)
                why = _why_refused(status, said, key)
                if status not in _ASKED_AGAIN:
                    break
                wait = wait if after is None else min(after, _LONGEST_WAIT)
            if attempt + 1 < self.tries:
                time.sleep(wait)
        else:
            why += f"; asked {self.tries} times"
        raise TrialError(f"{self.url} (model {self.model}) {why}.")

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, float | None]:
        """Status, content, and after how many seconds to ask again, where the server says so."""
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            path = parts.path.rstrip("/") + "/chat/completions"
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            said = response.read(_LONGEST_REPLY)
            return response.status, said, _seconds_in(response.getheader("retry-after"))
        finally:
            connection.close()


def _key_for(url: str) -> str:
    """The key for a server, "" where there is none. Raises ConfigError for one not to be sent."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{KEY_VARIABLE}: expected a key, one word of ASCII, found something else."
        )
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_this_machine(parts.hostname or ""):
        raise ConfigError(
            f"{url}: a key is sent to other machines by https:// alone. Unset {KEY_VARIABLE} for a "
            "server that needs none."
        )
    return key


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds_in(header: str | None) -> float | None:
    """Of Retry-After: seconds; a date is not read."""
    return float(header) if header and re.fullmatch(r"\d+(\.\d+)?", header.strip()) else None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    lines = str(error).splitlines()
    return short(lines[0], 160) if lines else type(error).__name__


def _why_refused(status: int, said: bytes, key: str) -> str:
    text = _plain(said.decode("utf-8", "replace"), key)
    more = f": {text}" if text else ""
    if status in {401, 403}:
        held = "the key in" if key else "a request without a key; there is none in"
        return f"refused {held} {KEY_VARIABLE} ({status}{more})"
    if status == 404:
        return f"has no such model, or no chat completions at this address ({status}{more})"
    if status == 429:
        return f"asks to wait: too many requests, or nothing left to pay with ({status}{more})"
    if 300 <= status < 400:
        return f"sends on to another address, which is not asked ({status}). Name that one"
    return f"refused to answer ({status}{more})"


def _plain(text: str, key: str) -> str:
    """What a server says, in a line and without the key."""
    with suppress(ValueError, LookupError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    if key:
        text = text.replace(key, "***")
    return short("".join(c if c.isprintable() else " " for c in text).strip(), 200)


def _reply_in(url: str, said: bytes, seconds: float) -> Reply:
    try:
        value: Any = json.loads(said)
        text = value["choices"][0]["message"]["content"]
        used = value.get("usage") or {}
        counts = [used.get(k) for k in ("prompt_tokens", "completion_tokens")]
        tokens_in, tokens_out = (n if type(n) is int and n >= 0 else None for n in counts)
    except (ValueError, LookupError, TypeError, AttributeError):
        start = _plain(said[:200].decode("utf-8", "replace"), "")
        raise TrialError(
            f"{url}: expected a chat completion (choices, message, content), found {start!r}."
        ) from None
    return Reply(str(text or "")[:10_000], seconds, tokens_in, tokens_out)
