"""Prices as operators work on them: drafts, what they change for whom, publishing, and notices."""
