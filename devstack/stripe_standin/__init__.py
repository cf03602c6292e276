"""A stand-in for Stripe: the part of its HTTP API that we use, spoken to Stripe's own unchanged client.

A process of its own with a store of its own (SQLite). It moves no money; every page that it shows says so.
`docs/stripe_standin.md` tells what it does and how it is told what to do.
"""
