"""Welcome credit: who gets it (policy) and what became of it (queries). quotas.operations writes it."""
