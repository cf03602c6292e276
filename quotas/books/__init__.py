"""The books: what the ledger says of a period, and the months that are closed."""
