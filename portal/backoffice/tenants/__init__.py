"""Operators' pages: tenants."""
