"""Tests of the engine simulators."""
