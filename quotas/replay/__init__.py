"""Exact what-ifs: the calls of the last month, priced with a draft by the function that charges calls."""
