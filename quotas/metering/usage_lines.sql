-- What usage comes to by model and token class, of the transfers that an invoice covers (quotas_invoice_transfers).
--
-- A transfer posts what a revision adds to the last one before it that had a transfer. So each class has what it comes
-- to by the revision, less what it came to by the one before. What paid credit paid of a revision is split over its
-- billed lines by their cost, in whole nano-units: rounded down, and the units that are missing go one each to the
-- largest remainders, on a tie in the order of the classes.
WITH covered AS MATERIALIZED (
  SELECT * FROM quotas_invoice_transfers(%(tenant)s, %(since)s, %(from)s, %(from_cut)s, %(to)s, %(cut)s)
), revisions AS (
  SELECT request_id, revision, 1 AS sign FROM covered
  UNION ALL
  SELECT c.request_id, p.revision, -1
  FROM covered c CROSS JOIN LATERAL (
    SELECT u.revision FROM quotas_usagerecord u
    WHERE u.request_id = c.request_id AND u.revision < c.revision AND u.transfer_id IS NOT NULL
    ORDER BY u.revision DESC LIMIT 1) p
  WHERE c.revision > 1
), lines AS (
  SELECT r.request_id, r.revision, r.sign, q.model_id, u.charged_nanos - u.granted_nanos AS paid, l.token_class, l.units,
    l.amount_nanos AS cost,
    array_position(ARRAY['input', 'cached_input', 'image', 'output', 'reasoning', 'request'], l.token_class) AS place
  FROM revisions r
  JOIN quotas_usagerecord u ON u.request_id = r.request_id AND u.revision = r.revision
  JOIN quotas_inferencerequest q ON q.id = r.request_id
  CROSS JOIN LATERAL catalog_usage_lines(q.price_version_id, q.service_tier, q.price_window_id, u.prompt_tokens,
    u.cached_tokens, u.image_tokens, u.completion_tokens, u.reasoning_tokens) l
  WHERE u.basis <> 'NOTHING'
    AND (u.billed = 'DELIVERED' OR (u.billed = 'INPUT' AND l.token_class NOT IN ('output', 'reasoning')))
), weighed AS (
  SELECT l.*, sum(cost) OVER call AS whole FROM lines l WINDOW call AS (PARTITION BY request_id, revision, sign)
), parts AS (
  SELECT w.*, CASE WHEN whole > 0 THEN div(paid::numeric * cost, whole) ELSE 0 END AS part,
    CASE WHEN whole > 0 THEN mod(paid::numeric * cost, whole) ELSE 0 END AS remainder
  FROM weighed w
), shares AS (
  SELECT p.*, part + CASE WHEN whole > 0 AND paid - sum(part) OVER call
    >= row_number() OVER (call ORDER BY remainder DESC, place) THEN 1 ELSE 0 END AS share
  FROM parts p WINDOW call AS (PARTITION BY request_id, revision, sign)
)
SELECT s.model_id, s.token_class, sum(s.sign * s.units)::bigint, sum(s.sign * s.cost)::bigint,
  sum(s.sign * s.share)::bigint
FROM shares s
GROUP BY s.model_id, s.token_class
HAVING sum(s.sign * s.units) <> 0 OR sum(s.sign * s.cost) <> 0 OR sum(s.sign * s.share) <> 0
ORDER BY s.model_id, min(s.place)
