"""Reads for the people who look at what two witnesses do not agree about. As operator."""
