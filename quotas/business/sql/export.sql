-- One hour as rows of the export: what was sold to whom, what was reserved and not sold, and what was reserved
-- for nobody; of the calls and costs that are in the currency on either side.
SELECT a.hour, 'SOLD' AS kind, pool.code AS pool, backend.code AS backend, model.slug AS model, b.tenant_id,
  t.name AS organization, b.requests, b.uncosted_requests, b.prompt_tokens, b.cached_tokens, b.completion_tokens,
  b.weighted, b.revenue_nanos, b.granted_nanos, b.overrun_nanos, b.currency, b.cost_nanos,
  p.currency AS cost_currency, a.is_final
FROM quotas_allocatedhour a
JOIN quotas_businesshour b ON b.hour = a.hour
JOIN quotas_deploymenthour d ON d.hour = b.hour AND d.deployment_id = b.deployment_id
JOIN quotas_poolhour p ON p.hour = d.hour AND p.pool_id = d.pool_id
JOIN models_catalog_servingpool pool ON pool.id = d.pool_id
JOIN models_catalog_servingbackend backend ON backend.id = d.backend_id
JOIN models_catalog_catalogmodel model ON model.id = d.model_id
JOIN tenants_tenant t ON t.id = b.tenant_id
WHERE a.hour = %(hour)s AND %(currency)s IN (b.currency, p.currency)
UNION ALL
SELECT a.hour, 'IDLE', pool.code, backend.code, model.slug, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, d.idle_nanos, p.currency, a.is_final
FROM quotas_allocatedhour a
JOIN quotas_deploymenthour d ON d.hour = a.hour
JOIN quotas_poolhour p ON p.hour = d.hour AND p.pool_id = d.pool_id
JOIN models_catalog_servingpool pool ON pool.id = d.pool_id
JOIN models_catalog_servingbackend backend ON backend.id = d.backend_id
JOIN models_catalog_catalogmodel model ON model.id = d.model_id
WHERE a.hour = %(hour)s AND p.currency = %(currency)s AND d.idle_nanos > 0
UNION ALL
SELECT a.hour, 'UNRESERVED', pool.code, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, p.unreserved_nanos, p.currency, a.is_final
FROM quotas_allocatedhour a
JOIN quotas_poolhour p ON p.hour = a.hour
JOIN models_catalog_servingpool pool ON pool.id = p.pool_id
WHERE a.hour = %(hour)s AND p.currency = %(currency)s AND p.unreserved_nanos > 0
ORDER BY kind DESC, pool, backend, model, organization, tenant_id
