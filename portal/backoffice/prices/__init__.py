"""Operators' pages: prices."""
