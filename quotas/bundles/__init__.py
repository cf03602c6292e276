"""Bills that can be checked without us: signed files of usage, prices and corrections.

A bundle is a row with progress, made by a task from one snapshot of the database as the organization's own
role, so that no line of anybody else can get in. docs/verifiable-bill.md says what is in the file.
"""
