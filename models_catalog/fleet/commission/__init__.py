"""Measures a deployment under rising load, directly and with prompts of our own: nobody is charged for it."""
