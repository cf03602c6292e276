-- The ledger: append-only double entry. Balances are kept by the database itself, so that no code
-- path can post an entry without moving the balance it belongs to.

CREATE FUNCTION quotas_transfer_id(p_kind text, p_key text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT substring(encode(sha256(convert_to(p_kind || ':' || p_key, 'UTF8')), 'hex') FOR 32)::uuid
$$;

CREATE FUNCTION quotas_account_id(p_tenant uuid, p_kind text, p_currency text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT quotas_transfer_id('account', coalesce(p_tenant::text, '-') || ':' || p_kind || ':' || p_currency)
$$;

CREATE FUNCTION quotas_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '23001';
END $$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON quotas_ledgertransfer
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON quotas_ledgerentry
  FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON quotas_ledgertransfer
  FOR EACH STATEMENT EXECUTE FUNCTION quotas_refuse_change();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON quotas_ledgerentry
  FOR EACH STATEMENT EXECUTE FUNCTION quotas_refuse_change();

-- After every insert of entries: each transfer sums to zero, each leg belongs to the tenant of its
-- account, and the wallets follow their entries. These triggers run with the owner's rights: no role of
-- the product may update a balance by itself. pg_temp stands last in their search path, because it would
-- come first otherwise, and with it anybody's temporary table of the same name.
CREATE FUNCTION quotas_apply_entries() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  v_transfer uuid;
  v_moved int;
BEGIN
  SELECT transfer_id INTO v_transfer FROM inserted GROUP BY transfer_id, currency HAVING sum(amount_nanos) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'transfer % does not sum to zero', v_transfer USING ERRCODE = '23514';
  END IF;
  SELECT i.transfer_id INTO v_transfer FROM inserted i JOIN quotas_ledgeraccount a ON a.id = i.account_id
  WHERE i.tenant_id IS DISTINCT FROM a.tenant_id LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'transfer % has a leg that is not of the tenant of its account', v_transfer USING ERRCODE = '23514';
  END IF;
  UPDATE quotas_wallet w SET
    paid_nanos = w.paid_nanos + d.paid, granted_nanos = w.granted_nanos + d.granted,
    receivable_nanos = w.receivable_nanos + d.receivable
  FROM (SELECT i.tenant_id,
          coalesce(sum(i.amount_nanos) FILTER (WHERE a.kind = 'TOPPED_UP'), 0)::bigint AS paid,
          coalesce(sum(i.amount_nanos) FILTER (WHERE a.kind = 'GRANTED'), 0)::bigint AS granted,
          coalesce(sum(i.amount_nanos) FILTER (WHERE a.kind = 'RECEIVABLE'), 0)::bigint AS receivable
        FROM inserted i JOIN quotas_ledgeraccount a ON a.id = i.account_id
        WHERE a.tenant_id IS NOT NULL
        GROUP BY i.tenant_id) d
  WHERE w.tenant_id = d.tenant_id;
  -- A wall in the way of the owner (after a restore under another login) would hide the wallets: then
  -- money must not move at all.
  GET DIAGNOSTICS v_moved = ROW_COUNT;
  IF v_moved <> (SELECT count(DISTINCT tenant_id) FROM inserted) THEN
    RAISE EXCEPTION 'a wallet did not follow its entries' USING ERRCODE = '23514';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ledger_apply_entries AFTER INSERT ON quotas_ledgerentry
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION quotas_apply_entries();

-- A hold is resolved at most once, and what it reserves never changes.
CREATE FUNCTION quotas_guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'holds are not deleted' USING ERRCODE = '23001';
  END IF;
  IF OLD.state <> 'PENDING' THEN
    RAISE EXCEPTION 'hold of request % is already resolved', OLD.request_id USING ERRCODE = '23001';
  END IF;
  IF (NEW.request_id, NEW.tenant_id, NEW.currency, NEW.amount_nanos)
     IS DISTINCT FROM (OLD.request_id, OLD.tenant_id, OLD.currency, OLD.amount_nanos) THEN
    RAISE EXCEPTION 'what a hold reserves never changes' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER hold_guard BEFORE UPDATE OR DELETE ON quotas_hold
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_hold();

-- The wallets' pending amounts follow the holds.
CREATE FUNCTION quotas_apply_new_holds() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  v_moved int;
BEGIN
  UPDATE quotas_wallet w SET pending_nanos = w.pending_nanos + d.amount
  FROM (SELECT tenant_id, sum(amount_nanos)::bigint AS amount FROM inserted WHERE state = 'PENDING' GROUP BY tenant_id) d
  WHERE w.tenant_id = d.tenant_id;
  GET DIAGNOSTICS v_moved = ROW_COUNT;
  IF v_moved <> (SELECT count(DISTINCT tenant_id) FROM inserted WHERE state = 'PENDING') THEN
    RAISE EXCEPTION 'a wallet did not follow its holds' USING ERRCODE = '23514';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER hold_apply_new AFTER INSERT ON quotas_hold
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION quotas_apply_new_holds();

CREATE FUNCTION quotas_apply_resolved_holds() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  v_moved int;
BEGIN
  UPDATE quotas_wallet w SET pending_nanos = w.pending_nanos - d.amount
  FROM (SELECT n.tenant_id, sum(n.amount_nanos)::bigint AS amount
        FROM updated n WHERE n.state <> 'PENDING' GROUP BY n.tenant_id) d
  WHERE w.tenant_id = d.tenant_id;
  GET DIAGNOSTICS v_moved = ROW_COUNT;
  IF v_moved <> (SELECT count(DISTINCT tenant_id) FROM updated WHERE state <> 'PENDING') THEN
    RAISE EXCEPTION 'a wallet did not follow its holds' USING ERRCODE = '23514';
  END IF;
  RETURN NULL;
END $$;
-- hold_guard refuses to touch a resolved hold, so every updated row that is not pending now was
-- pending before.
CREATE TRIGGER hold_apply_resolved AFTER UPDATE ON quotas_hold
  REFERENCING NEW TABLE AS updated FOR EACH STATEMENT EXECUTE FUNCTION quotas_apply_resolved_holds();

-- Locks the wallets of a batch's tenants, in their one order, before anything else of them is locked, and
-- answers whose it got. p_block_ms: 0 waits for none of them; otherwise how long to wait. Also bounds
-- the waits for locks in the rest of the transaction.
CREATE FUNCTION quotas_lock_wallets(p_rows jsonb, p_block_ms int) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
  v_tenants uuid[];
  v_locked uuid[];
BEGIN
  SELECT array_agg(DISTINCT x.tenant_id) INTO v_tenants FROM jsonb_to_recordset(p_rows) AS x(tenant_id uuid);
  PERFORM set_config('lock_timeout', CASE WHEN p_block_ms > 0 THEN p_block_ms ELSE 250 END || 'ms', true);
  IF p_block_ms > 0 THEN
    SELECT array_agg(w.tenant_id) INTO v_locked FROM (
      SELECT tenant_id FROM quotas_wallet WHERE tenant_id = ANY (v_tenants) ORDER BY tenant_id FOR NO KEY UPDATE) w;
  ELSE
    SELECT array_agg(w.tenant_id) INTO v_locked FROM (
      SELECT tenant_id FROM quotas_wallet WHERE tenant_id = ANY (v_tenants) ORDER BY tenant_id
      FOR NO KEY UPDATE SKIP LOCKED) w;
  END IF;
  RETURN v_locked;
END $$;

CREATE TYPE quotas_leg AS (
  transfer_id uuid, kind text, tenant_id uuid, currency text, request_id uuid, revision int, reason text,
  account_kind text, account_tenant_id uuid, amount_nanos bigint
);

-- The payload of a transfer, as hashed: who, what for, and every leg.
CREATE FUNCTION quotas_payload_text(p_kind text, p_tenant uuid, p_currency text, p_request uuid, p_revision int, p_legs text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT concat_ws('|', p_kind, coalesce(p_tenant::text, '-'), p_currency, coalesce(p_request::text, '-'),
                   coalesce(p_revision::text, '-'), p_legs)
$$;

-- The transfers that legs make, each with the hash of its payload. The order of the kinds is that of
-- their bytes, so that the hash depends on no collation.
CREATE FUNCTION quotas_payloads(p_legs quotas_leg[])
RETURNS TABLE (id uuid, kind text, tenant_id uuid, currency text, request_id uuid, revision int, reason text,
               payload_sha256 bytea)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT l.transfer_id, l.kind, l.tenant_id, l.currency, l.request_id, l.revision, coalesce(max(l.reason), ''),
    sha256(convert_to(quotas_payload_text(l.kind, l.tenant_id, l.currency, l.request_id, l.revision,
      string_agg(l.account_kind || '=' || l.amount_nanos, ',' ORDER BY l.account_kind COLLATE "C")), 'UTF8'))
  FROM unnest(p_legs) l
  GROUP BY l.transfer_id, l.kind, l.tenant_id, l.currency, l.request_id, l.revision
$$;

-- Posts transfers: the one way into the ledger. Each transfer's legs come together; an account may
-- stand once in a transfer. Answers for each transfer whether it was posted now; a transfer that
-- exists with the same payload is not posted again, one with another payload is an error.
CREATE FUNCTION quotas_post(p_legs quotas_leg[])
RETURNS TABLE (transfer_id uuid, posted boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_new uuid[];
  v_wanted int;
  v_conflict uuid;
BEGIN
  PERFORM 1 FROM quotas_wallet w
  WHERE w.tenant_id IN (SELECT l.account_tenant_id FROM unnest(p_legs) l WHERE l.account_tenant_id IS NOT NULL)
  ORDER BY w.tenant_id FOR NO KEY UPDATE;

  WITH wanted AS MATERIALIZED (
    SELECT * FROM quotas_payloads(p_legs)
  ), fresh AS (
    INSERT INTO quotas_ledgertransfer (id, kind, tenant_id, currency, request_id, revision, reason, payload_sha256)
    SELECT id, kind, tenant_id, currency, request_id, revision, reason, payload_sha256 FROM wanted ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
  )
  SELECT (SELECT coalesce(array_agg(id), '{}') FROM fresh), (SELECT count(*) FROM wanted) INTO v_new, v_wanted;
  IF cardinality(v_new) <> v_wanted THEN
    -- A statement of its own: the insert may have waited for somebody, whose rows it does not see.
    SELECT w.id INTO v_conflict FROM quotas_payloads(p_legs) w JOIN quotas_ledgertransfer t ON t.id = w.id
    WHERE t.payload_sha256 <> w.payload_sha256 LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'transfer % exists with another payload', v_conflict USING ERRCODE = '23505';
    END IF;
  END IF;

  INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos)
  SELECT l.transfer_id, quotas_account_id(l.account_tenant_id, l.account_kind, l.currency),
         l.account_tenant_id, l.currency, l.amount_nanos
  FROM unnest(p_legs) l WHERE l.transfer_id = ANY (v_new);

  RETURN QUERY SELECT DISTINCT l.transfer_id, l.transfer_id = ANY (v_new) FROM unnest(p_legs) l;
END $$;

-- Opens the wallet and the accounts of a tenant, and the house's own accounts of its currency.
CREATE FUNCTION quotas_open_wallet(p_tenant uuid, p_currency text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO quotas_wallet (tenant_id, currency) VALUES (p_tenant, p_currency);
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(p_tenant, k, p_currency), p_tenant, k, p_currency
  FROM unnest(ARRAY['TOPPED_UP', 'GRANTED', 'RECEIVABLE']) k;
  INSERT INTO quotas_ledgeraccount (id, tenant_id, kind, currency)
  SELECT quotas_account_id(NULL, k, p_currency), NULL, k, p_currency
  FROM unnest(ARRAY['REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'CASH_CLEARING', 'STRIPE_CLEARING',
                    'OVERRUN_EXPENSE', 'UNBILLED_USAGE']) k
  ON CONFLICT DO NOTHING;
END $$;
