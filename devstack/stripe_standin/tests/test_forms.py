"""Form bodies: what Stripe's client writes is read back, and what was never read is told."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe._encode import _api_encode

from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.forms import Params, decode

names = st.text("abcdefghij_", min_size=1, max_size=8)
leaves = st.text(max_size=20) | st.integers()
# The client leaves booleans in lists as Python writes them, so those stay out.
values = st.recursive(
    leaves,
    lambda below: (
        st.dictionaries(names, below | st.booleans(), min_size=1, max_size=3)
        | st.lists(below, min_size=1, max_size=3)
    ),
    max_leaves=10,
)


def as_text(value: Any) -> Any:
    """How a value looks once it went through a form."""
    if isinstance(value, dict):
        return {key: as_text(part) for key, part in value.items()}
    if isinstance(value, list):
        return {str(number): as_text(part) for number, part in enumerate(value)}
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(st.dictionaries(names, values | st.booleans(), max_size=4))
def test_what_the_client_encodes_is_decoded(params: dict[str, Any]):
    assert decode(urlencode(list(_api_encode(params)))) == as_text(params)


@given(st.text("ab[]=&%0", max_size=30))
def test_any_text_is_read_or_refused(text: str):
    with suppress(ApiError):
        Params(decode(text)).refuse_unread()


def test_what_nobody_read_is_unknown():
    params = Params(decode("a=1&b[c]=2&b[d]=3&expand[0]=x"))
    params.integer("a")
    params.child("b").text("c")
    with pytest.raises(ApiError) as refusal:
        params.refuse_unread()
    assert refusal.value.body["error"]["param"] == "b[d]"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("x=many", lambda params: params.integer("x")),
        ("x=0", lambda params: params.amount("x")),
        ("x=yes", lambda params: params.flag("x")),
        ("x=1", lambda params: params.child("x")),
        ("x=1", lambda params: params.children("x")),
        ("x[y]=1", lambda params: params.text("x")),
        ("x=dollars", lambda params: params.currency("x")),
        ("", lambda params: params.needed("x")),
        ("x=c", lambda params: params.choice("x", ("a", "b"))),
    ],
)
def test_wrong_values_are_refused_by_name(text: str, read: Any):
    with pytest.raises(ApiError) as refusal:
        read(Params(decode(text)))
    assert refusal.value.body["error"]["param"] == "x"
