"""Operators' pages: audit."""
