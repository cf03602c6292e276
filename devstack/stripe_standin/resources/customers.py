"""Customers and their tax ids."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.expansion import included
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, shown

_TEXTS = ("email", "name", "phone", "description")
_ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


def read_address(params: Params, key: str = "address") -> Obj | None:
    """A postal address as it was sent; None when it was not, or was emptied."""
    if params.take(key) in (None, ""):
        return None
    child = params.child(key)
    return {name: child.text(name) for name in _ADDRESS}


def blank(world: World) -> Obj:
    """A customer of whom nothing is known."""
    return {
        "id": "cus_" + new_id("x")[-14:],
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": world.now(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": None,
        "invoice_prefix": new_id("x")[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
        "_tax_ids": [],
    }


@route("POST", "/v1/customers", "customer_write")
def create(call: Call) -> Obj:
    world = call.world
    customer = blank(world)
    for tax_id in call.params.children("tax_id_data"):
        customer["_tax_ids"].append(
            _tax_id(world, customer["id"], tax_id.needed("type"), tax_id.needed("value"))
        )
    _apply(call, customer)
    world.put(customer)
    world.emit("customer.created", customer)
    return customer


@route("GET", "/v1/customers/{customer}", "customer_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("customer", call.id)


@route("POST", "/v1/customers/{customer}", "customer_write")
def update(call: Call) -> Obj:
    customer = call.world.get("customer", call.id)
    before = shown(customer)
    _apply(call, customer)
    return save(call.world, customer, before)


@route("GET", "/v1/customers", "customer_read")
def list_all(call: Call) -> Obj:
    return listed(call, "customer", "email")


@route("POST", "/v1/customers/{customer}/tax_ids", "customer_write")
def create_tax_id(call: Call) -> Obj:
    customer = call.world.get("customer", call.id)
    return add_tax_id(call.world, customer, call.params.needed("type"), call.params.needed("value"))


def add_tax_id(world: World, customer: Obj, kind: str, value: str) -> Obj:
    made = _tax_id(world, customer["id"], kind, value)
    customer["_tax_ids"].append(made)
    world.put(customer)
    world.emit("customer.tax_id.created", made)
    return made


@route("GET", "/v1/customers/{customer}/tax_ids", "customer_read")
def list_tax_ids(call: Call) -> Obj:
    for name in ("limit", "starting_after", "ending_before"):
        call.params.take(name)
    page: Obj = show_tax_ids(call.world, call.world.get("customer", call.id))
    return page


@included("customer", "tax_ids")
def show_tax_ids(world: World, customer: Obj) -> Any:
    url = f"/v1/customers/{customer['id']}/tax_ids"
    return {"object": "list", "data": customer["_tax_ids"], "has_more": False, "url": url}


def save(world: World, customer: Obj, before: Obj) -> Obj:
    """Stores a customer and tells what changed."""
    world.put(customer)
    after = shown(customer)
    previous = {key: before.get(key) for key in after if after[key] != before.get(key)}
    if previous:
        world.emit("customer.updated", customer, previous)
    return customer


def _apply(call: Call, customer: Obj) -> None:
    params = call.params
    for name in _TEXTS:
        if params.has(name):
            customer[name] = params.text(name)
    if params.has("address"):
        customer["address"] = read_address(params)
    if params.has("preferred_locales"):
        customer["preferred_locales"] = params.texts("preferred_locales")
    if params.has("shipping"):
        shipping = params.child("shipping")
        customer["shipping"] = {
            "address": read_address(shipping),
            "name": shipping.text("name"),
            "phone": shipping.text("phone"),
        }
    customer["tax_exempt"] = params.choice(
        "tax_exempt", ("exempt", "none", "reverse"), customer["tax_exempt"]
    )
    customer["metadata"] = params.metadata(old=customer["metadata"])
    params.child("tax").take("validate_location")
    if params.has("invoice_settings"):
        settings = params.child("invoice_settings")
        if settings.has("default_payment_method"):
            chosen = settings.text("default_payment_method")
            if chosen is not None:
                call.world.get("payment_method", chosen, param="invoice_settings[default_payment_method]")
            customer["invoice_settings"]["default_payment_method"] = chosen
        if settings.has("footer"):
            customer["invoice_settings"]["footer"] = settings.text("footer")


def _tax_id(world: World, customer: str, kind: str, value: str) -> Obj:
    return {
        "id": new_id("txi"),
        "object": "tax_id",
        "country": "DE" if kind == "eu_vat" else kind[:2].upper(),
        "created": world.now(),
        "customer": customer,
        "customer_account": None,
        "livemode": False,
        "owner": {"type": "customer", "customer": customer},
        "type": kind,
        "value": value,
        "verification": {"status": "pending", "verified_address": None, "verified_name": None},
    }
