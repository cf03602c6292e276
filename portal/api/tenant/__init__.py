"""Endpoints of one organization: whose key it is decides which."""
