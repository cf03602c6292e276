"""Sessions of the hosted customer portal; `pages/portal.py` shows them."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid
from devstack.stripe_standin.routing import Call, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import new_id, token

LIVES_S = 3600
FLOWS = ("payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")


@route("POST", "/v1/billing_portal/sessions", "customer_portal_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    customer = world.get("customer", params.needed("customer"), param="customer")
    flow = params.child("flow_data")
    kind = flow.choice("type", FLOWS)
    if kind not in (None, "payment_method_update"):
        raise invalid("flow_data[type]", "The stand-in knows the flow payment_method_update only.")
    after = flow.child("after_completion")
    after_type = after.choice("type", ("hosted_confirmation", "portal_homepage", "redirect"))
    redirect = after.child("redirect").text("return_url")
    params.text("locale")
    params.text("configuration")
    return world.put(
        {
            "id": new_id("bps"),
            "object": "billing_portal.session",
            "configuration": "bpc_1standin",
            "created": world.now(),
            "customer": customer["id"],
            "customer_account": None,
            "flow": None
            if kind is None
            else {
                "after_completion": {
                    "hosted_confirmation": None,
                    "redirect": {"return_url": redirect} if redirect else None,
                    "type": after_type or "portal_homepage",
                },
                "subscription_cancel": None,
                "subscription_update": None,
                "subscription_update_confirm": None,
                "type": kind,
            },
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": params.text("return_url"),
            "url": f"{world.base_url}/p/session/{token(40)}",
        }
    )
