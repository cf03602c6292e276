"""Everything the stand-in remembers, in one SQLite file: what was answered survives a SIGKILL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Obj = dict[str, Any]

# What lists are filtered by. Names that begin with an underscore are ours and are never shown.
INDEXED = (
    "customer",
    "payment_intent",
    "charge",
    "source",
    "invoice",
    "payout",
    "status",
    "type",
    "_payout",
    "_intent",
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    created INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (kind, created);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL, answer TEXT
);
CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due);
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, at REAL NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, route TEXT,
    status INTEGER NOT NULL, idempotency_key TEXT, fault TEXT
);
CREATE TABLE IF NOT EXISTS violations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL, route TEXT NOT NULL, what TEXT NOT NULL
);
"""


class Store:
    """One connection, used by one thread. Writes happen inside `transaction` only."""

    def __init__(self, path: Path | str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        # A crash of the machine may lose the end of the file, the end of this process may not.
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.executescript(_SCHEMA)
        for field in INDEXED:
            self.db.execute(
                f'CREATE INDEX IF NOT EXISTS "objects_by_{field}" ON objects (kind, {_extract(field)})'
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; the caller keeps what it read in memory to itself."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def put(self, obj: Obj) -> Obj:
        """Inserts or replaces; the object's place in lists stays."""
        self.db.execute(
            "INSERT INTO objects (id, kind, created, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (obj["id"], obj["object"], obj.get("created", 0), json.dumps(obj)),
        )
        return obj

    def delete(self, identifier: str) -> None:
        self.db.execute("DELETE FROM objects WHERE id = ?", (identifier,))

    def get(self, kind: str, identifier: str) -> Obj | None:
        row = self.db.execute(
            "SELECT body FROM objects WHERE id = ? AND kind = ?", (identifier, kind)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def seq_of(self, kind: str, identifier: str) -> int | None:
        """The object's place among all, or None."""
        row = self.db.execute(
            "SELECT seq FROM objects WHERE id = ? AND kind = ?", (identifier, kind)
        ).fetchone()
        return None if row is None else int(row[0])

    def find(
        self,
        kind: str,
        where: Mapping[str, object] | None = None,
        *,
        created: Mapping[str, int] | None = None,
        seq_below: int | None = None,
        seq_above: int | None = None,
        also: str = "",
        values: tuple[object, ...] = (),
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> list[Obj]:
        """Newest first. `where` compares fields of the object; `also` is SQL with its `values`."""
        conditions, arguments = ["kind = ?"], [kind]
        args: list[object] = list(arguments)
        for field, value in (where or {}).items():
            conditions.append(f"{_extract(field)} = ?")
            args.append(int(value) if isinstance(value, bool) else value)
        for operator, bound in (created or {}).items():
            conditions.append(f"created {_OPERATORS[operator]} ?")
            args.append(bound)
        for condition, bound_seq in (("seq < ?", seq_below), ("seq > ?", seq_above)):
            if bound_seq is not None:
                conditions.append(condition)
                args.append(bound_seq)
        if also:
            conditions.append(f"({also})")
            args.extend(values)
        order = "ASC" if oldest_first else "DESC"
        sql = f"SELECT body FROM objects WHERE {' AND '.join(conditions)} ORDER BY seq {order}"  # noqa: S608
        if limit is not None:
            sql += f" LIMIT {int(limit)}"
        return [json.loads(row[0]) for row in self.db.execute(sql, args)]

    def recall(self, name: str, default: Any = None) -> Any:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def remember(self, name: str, value: Any) -> None:
        self.db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )


_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _extract(field: str) -> str:
    """The SQL of a top-level or dotted field; only names of our own code come here."""
    if not field.replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"not a field: {field}")
    return f"json_extract(body, '$.{field}')"
