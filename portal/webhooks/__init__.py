"""The door for what other services tell: verify, store, answer. Nothing is processed here."""
