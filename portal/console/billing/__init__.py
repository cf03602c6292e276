"""Billing: what an organization has and owes, buying credit, and the papers about it."""
