"""Operators' pages: floor."""
