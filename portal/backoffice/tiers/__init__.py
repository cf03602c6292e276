"""Operators' pages: tiers."""
