"""The fleet as operators run it: pools, backends, deployments, what they cost and what they carry."""
