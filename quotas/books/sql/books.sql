-- Closed months.

CREATE FUNCTION quotas_month_end(p_month date) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (p_month + interval '1 month') AT TIME ZONE 'UTC'
$$;

-- Whoever closes a month holds this lock until the end; postings that are late take it shared.
CREATE FUNCTION quotas_closing_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT 5501140014
$$;

-- Nothing is posted into a closed month. A posting's moment is when its statement began, and a month
-- closes an hour after its end at the earliest: what is younger than half an hour cannot be of a closed month,
-- and costs one aggregate over the rows of the statement (some 25 µs). Only what is older waits for a closing under way,
-- and looks. The closing waits for those that had posted before it began.
CREATE FUNCTION quotas_refuse_closed_month() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_first timestamptz;
BEGIN
  SELECT min(posted_at) INTO v_first FROM inserted;
  IF v_first IS NULL OR v_first > clock_timestamp() - interval '30 minutes' THEN
    RETURN NULL;
  END IF;
  PERFORM pg_advisory_xact_lock_shared(quotas_closing_lock());
  IF v_first < (SELECT quotas_month_end(max(month)) FROM quotas_closedmonth) THEN
    RAISE EXCEPTION 'the books of % are closed', to_char(v_first AT TIME ZONE 'UTC', 'YYYY-MM')
      USING ERRCODE = '23514', CONSTRAINT = 'transfer_month_open';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER ledger_month_open AFTER INSERT ON quotas_ledgertransfer
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION quotas_refuse_closed_month();

-- One month after the other, beginning with the first that has postings, each an hour after its end.
CREATE FUNCTION quotas_guard_closed_month() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_next date;
BEGIN
  IF TG_OP <> 'INSERT' THEN
    RAISE EXCEPTION 'a closed month stays as it is' USING ERRCODE = '23001';
  END IF;
  SELECT coalesce(
    (SELECT (max(month) + interval '1 month')::date FROM quotas_closedmonth),
    (SELECT date_trunc('month', min(posted_at) AT TIME ZONE 'UTC')::date FROM quotas_ledgertransfer)) INTO v_next;
  IF v_next IS NULL OR NEW.month <> v_next THEN
    RAISE EXCEPTION 'the month to close next is %', v_next
      USING ERRCODE = '23514', CONSTRAINT = 'closedmonth_one_after_the_other';
  END IF;
  IF quotas_month_end(NEW.month) > clock_timestamp() - interval '1 hour' THEN
    RAISE EXCEPTION '% has not ended an hour ago', to_char(NEW.month, 'YYYY-MM')
      USING ERRCODE = '23514', CONSTRAINT = 'closedmonth_ended';
  END IF;
  NEW.closed_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_closed_month BEFORE INSERT OR UPDATE OR DELETE ON quotas_closedmonth
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_closed_month();

-- Balances come with their month, in its transaction, and stay.
CREATE FUNCTION quotas_guard_closed_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    RAISE EXCEPTION 'a closed month stays as it is' USING ERRCODE = '23001';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM quotas_closedmonth WHERE month = NEW.month_id AND closed_at = now()) THEN
    RAISE EXCEPTION 'balances come with their month' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER quotas_guard_closed_balance BEFORE INSERT OR UPDATE OR DELETE ON quotas_closedbalance
  FOR EACH ROW EXECUTE FUNCTION quotas_guard_closed_balance();

-- At commit a closed month's balances sum to zero and begin where the month before ended.
CREATE FUNCTION quotas_check_closed_month() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM quotas_closedbalance WHERE month_id = NEW.month GROUP BY currency
             HAVING sum(opening_nanos) <> 0 OR sum(closing_nanos) <> 0 OR sum(debits_nanos) <> sum(credits_nanos)) THEN
    RAISE EXCEPTION 'the trial balance of % does not sum to zero', NEW.month
      USING ERRCODE = '23514', CONSTRAINT = 'closedmonth_balanced';
  END IF;
  IF EXISTS (
    SELECT 1 FROM (SELECT * FROM quotas_closedbalance WHERE month_id = NEW.month) n
    FULL JOIN (SELECT * FROM quotas_closedbalance WHERE month_id = (NEW.month - interval '1 month')::date) o
      USING (currency, account)
    WHERE coalesce(n.opening_nanos, 0) <> coalesce(o.closing_nanos, 0)) THEN
    RAISE EXCEPTION '% does not begin where the month before ended', NEW.month
      USING ERRCODE = '23514', CONSTRAINT = 'closedmonth_continues';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER quotas_check_closed_month AFTER INSERT ON quotas_closedmonth
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quotas_check_closed_month();
