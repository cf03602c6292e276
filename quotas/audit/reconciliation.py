"""The invariants of control totals."""

from typing import Final

from quotas.audit.invariants import Invariant

# Of a closed window: its parts add up, its causes are what is explained, its counter is what the samples at
# both ends say (as long as they are kept), it does not begin before the last one ended, and what is left over
# is in suspense.
_WINDOWS_ADD_UP: Final = """
WITH closed AS (
  SELECT w.*, lag(w.to_at) OVER (PARTITION BY w.backend_id ORDER BY w.from_at) AS before_to
  FROM quotas_controlwindow w WHERE w.state = 'CLOSED'
)
SELECT 'window', w.id FROM closed w
LEFT JOIN LATERAL (
  SELECT coalesce(sum(c.prompt), 0) AS prompt, coalesce(sum(c.completion), 0) AS completion
  FROM jsonb_to_recordset(w.causes) AS c(prompt bigint, completion bigint)
) c ON true
WHERE w.counter_prompt_tokens
    <> w.matched_prompt_tokens + w.explained_prompt_tokens + w.suspense_prompt_tokens
  OR w.counter_completion_tokens
    <> w.matched_completion_tokens + w.explained_completion_tokens + w.suspense_completion_tokens
  OR (w.explained_prompt_tokens, w.explained_completion_tokens) <> (c.prompt, c.completion)
  OR w.from_at < w.before_to
UNION ALL
SELECT 'window', w.id FROM closed w
JOIN quotas_countersample f ON f.backend_id = w.backend_id AND f.incarnation = w.incarnation AND f.error = ''
  AND f.sampled_at = w.from_at
JOIN quotas_countersample l ON l.backend_id = w.backend_id AND l.incarnation = w.incarnation AND l.error = ''
  AND l.sampled_at = w.to_at
WHERE w.counter_completion_tokens <> l.completion_tokens - f.completion_tokens
  OR w.counter_prompt_tokens <> l.prompt_tokens - f.prompt_tokens
    + CASE WHEN l.prompt_excludes_cached THEN coalesce(l.cached_tokens - f.cached_tokens, 0) ELSE 0 END
UNION ALL
SELECT 'window', coalesce(w.id, i.window_id)
FROM (SELECT * FROM closed WHERE suspense_prompt_tokens <> 0 OR suspense_completion_tokens <> 0) w
FULL JOIN (SELECT * FROM quotas_suspenseitem WHERE kind = 'COUNTER') i ON i.window_id = w.id
WHERE (w.suspense_prompt_tokens, w.suspense_completion_tokens)
  IS DISTINCT FROM (i.prompt_tokens, i.completion_tokens)
"""

RECONCILIATION_INVARIANTS: Final[tuple[Invariant, ...]] = (
    Invariant("I9", "windows: counter = matched + explained + suspense", _WINDOWS_ADD_UP),
)
