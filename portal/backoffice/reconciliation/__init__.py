"""Operators' pages: reconciliation, what two witnesses say of every token."""
