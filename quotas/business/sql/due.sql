-- Hours that have to be allocated, the newest first: those that never were, that are not final, and, among
-- those of `marks` (sql/hours.sql, the lookback), that now rest on something else.
SELECT h.hour
FROM generate_series(%(begin)s, %(now)s - interval '1 second', interval '1 hour') AS h(hour)
LEFT JOIN quotas_allocatedhour a ON a.hour = h.hour
LEFT JOIN marks m ON m.hour = h.hour
WHERE a.hour IS NULL OR NOT a.is_final OR m.mark <> a.mark
ORDER BY h.hour DESC LIMIT %(most)s
