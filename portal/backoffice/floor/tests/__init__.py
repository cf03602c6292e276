"""Tests of the factory floor."""
