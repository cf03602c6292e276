"""How usage feeds come in: files that are read from where they were left, folders that are watched, bodies
that are pushed. Whatever the way, a batch commits as a whole: records, quarantine and cursor.
"""
