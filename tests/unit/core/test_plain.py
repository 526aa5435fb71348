"""What was read from JSON is taken as settings; what JSON cannot hold is refused."""

from __future__ import annotations

import json

import pytest

from tunelab.core.plain import as_settings

SETTINGS = {"r": 8, "rate": 1e-4, "bias": None, "dora": False, "to": ["q", "v"], "ranks": {"q": 4}}


def test_what_json_holds_is_kept():
    assert as_settings(json.loads(json.dumps(SETTINGS))) == SETTINGS
    assert as_settings({"to": ("q", ("v",))}) == {"to": ["q", ["v"]]}


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", [object()], {"a": {1}}])
def test_what_json_cannot_hold_is_refused(value: object):
    with pytest.raises(TypeError, match="expected what JSON holds, found"):
        as_settings({"r": value})
