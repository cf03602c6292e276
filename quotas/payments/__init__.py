"""Everything that knows Stripe: what comes in, what goes back, and the inbox of what Stripe says about it."""
