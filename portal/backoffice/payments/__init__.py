"""Operators' pages: payments, and what Stripe says about them."""
