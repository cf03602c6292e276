"""Operators' pages: who pays afterwards, and their monthly invoices."""
