"""The door for what backends say they have served: prove who sends it, take what can be read, answer with
counts."""
