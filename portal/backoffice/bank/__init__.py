"""Operators' pages: bank transfers, billing profiles and invoices on request."""
