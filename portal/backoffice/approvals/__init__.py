"""Operators' pages: approvals."""
