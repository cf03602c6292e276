"""Operators' pages: fleet."""
