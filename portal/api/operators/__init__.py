"""Endpoints of operators: their keys cross organizations."""
