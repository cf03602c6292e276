"""What the fleet costs, who used it, and what it earned: allocation of pool-hours and the figures from it."""
