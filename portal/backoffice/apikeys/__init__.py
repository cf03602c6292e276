"""Operators' pages: keys with which programs act as operators."""
