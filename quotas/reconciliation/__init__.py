"""Whether what the gateway metered agrees with what the backends say they served."""
