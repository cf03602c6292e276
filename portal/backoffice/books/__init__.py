"""Operators' pages: the books of a period, the journal, and closing a month."""
