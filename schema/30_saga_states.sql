--
-- From which state to which others sagas and their steps go, and which function lets
-- them.  All that changes a state is here.  Nothing reads it but tests, which have
-- triggers that make everything else an error (saga_check_transition()).
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_transitions()
RETURNS TABLE (of text, "from" text, "to" text, by text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  VALUES
    -- sagas, and those that dtx.force_saga() ends
    ('saga', NULL,           'pending',       'saga_make'),
    ('saga', 'pending',      'running',       'saga_try'),
    ('saga', 'pending',      'running',       'skip_step'),
    ('saga', 'pending',      'running',       'saga_give_up'),
    ('saga', 'pending',      'compensating',  'saga_compensate'),
    ('saga', 'running',      'compensating',  'saga_compensate'),
    ('saga', 'failed',       'compensating',  'saga_compensate'),
    ('saga', 'running',      'completed',     'saga_end'),
    ('saga', 'running',      'failed',        'saga_end'),
    ('saga', 'compensating', 'compensated',   'saga_end'),
    ('saga', 'compensating', 'failed',        'saga_end'),
    ('saga', 'pending',      'failed',        'saga_end'),
    ('saga', 'failed',       'running',       'saga_revive'),
    ('saga', 'failed',       'compensating',  'saga_revive'),
    ('saga', 'pending',      'completed',     'saga_end'),
    ('saga', 'pending',      'compensated',   'saga_end'),
    ('saga', 'running',      'compensated',   'saga_end'),
    ('saga', 'failed',       'completed',     'saga_end'),
    ('saga', 'failed',       'compensated',   'saga_end'),
    ('saga', 'compensating', 'completed',     'saga_end'),
    -- one that is a step of another saga, which turns back
    ('saga', 'completed',    'compensating',  'saga_compensate'),
    -- steps
    ('step', NULL,           'pending',       'saga_make'),
    ('step', NULL,           'pending',       'saga_advance'),
    ('step', NULL,           'pending',       'migrate_saga'),
    ('step', 'pending',      'running',       'saga_take_sql'),
    ('step', 'pending',      'waiting',       'saga_do_sleep'),
    ('step', 'pending',      'waiting',       'saga_do_signal'),
    ('step', 'pending',      'waiting',       'saga_do_external'),
    ('step', 'pending',      'waiting',       'saga_do_children'),
    ('step', 'pending',      'waiting',       'saga_compensate'),
    -- its expression was evaluated by a worker
    ('step', 'running',      'waiting',       'saga_do_sleep'),
    ('step', 'running',      'waiting',       'saga_do_signal'),
    ('step', 'running',      'waiting',       'saga_do_external'),
    ('step', 'running',      'waiting',       'saga_do_children'),
    ('step', 'running',      'skipped',       'saga_skipped'),
    ('step', 'waiting',      'skipped',       'saga_children_go_on'),
    ('step', 'waiting',      'pending',       'saga_attempt_failed'),
    ('step', 'pending',      'completed',     'saga_succeeded'),
    ('step', 'running',      'completed',     'saga_succeeded'),
    ('step', 'waiting',      'completed',     'saga_succeeded'),
    ('step', 'compensating', 'compensated',   'saga_succeeded'),
    ('step', 'running',      'pending',       'saga_attempt_failed'),
    ('step', 'running',      'failed',        'saga_attempt_failed'),
    ('step', 'pending',      'failed',        'saga_attempt_failed'),
    ('step', 'waiting',      'failed',        'saga_attempt_failed'),
    ('step', 'compensating', 'failed',        'saga_attempt_failed'),
    ('step', 'running',      'pending',       'saga_stopped'),
    ('step', 'waiting',      'skipped',       'saga_put_back'),
    ('step', 'pending',      'skipped',       'saga_stopped'),
    ('step', 'completed',    'compensating',  'saga_unwind'),
    ('step', 'completed',    'compensated',   'saga_unwind'),
    ('step', 'failed',       'compensating',  'saga_unwind'),
    ('step', 'skipped',      'compensating',  'saga_unwind'),
    ('step', 'pending',      'skipped',       'saga_compensate'),
    ('step', 'waiting',      'skipped',       'saga_compensate'),
    ('step', 'pending',      'failed',        'saga_orphaned'),
    ('step', 'running',      'failed',        'saga_orphaned'),
    ('step', 'waiting',      'failed',        'saga_orphaned'),
    ('step', 'compensating', 'failed',        'saga_orphaned'),
    ('step', 'failed',       'pending',       'retry_saga'),
    ('step', 'failed',       'compensating',  'retry_saga'),
    ('step', 'pending',      'skipped',       'skip_step'),
    ('step', 'waiting',      'skipped',       'skip_step'),
    ('step', 'failed',       'skipped',       'skip_step'),
    ('step', 'completed',    'skipped',       'skip_step'),
    ('step', 'compensating', 'skipped',       'skip_step'),
    ('step', 'pending',      'skipped',       'force_saga'),
    ('step', 'running',      'skipped',       'force_saga'),
    ('step', 'waiting',      'skipped',       'force_saga'),
    ('step', 'compensating', 'skipped',       'force_saga'),
    ('step', 'failed',       'skipped',       'force_saga'),
    -- deadlines, which are timers in step 0
    ('timer', NULL,           'waiting',       'saga_make'),
    ('timer', 'waiting',      'pending',       'saga_deadline');
END;

COMMENT ON FUNCTION dtx_internal.saga_transitions() IS
  'internal: from which states to which others sagas, steps, and timers of deadlines go, by which functions; from null: how they begin';

-- The argument of the trigger says of what: saga, step, or timer.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_transition() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  before text := CASE TG_OP WHEN 'UPDATE' THEN OLD.state END;
  after text := NEW.state;
  stack text;
  who text;
BEGIN
  IF after IS DISTINCT FROM before THEN
    -- The innermost function but this one.
    GET DIAGNOSTICS stack = PG_CONTEXT;
    who := split_part(split_part(stack, 'PL/pgSQL function dtx_internal.', 3), '(', 1);
    IF NOT EXISTS (SELECT FROM dtx_internal.saga_transitions() t
                    WHERE t.of = TG_ARGV[0] AND t."from" IS NOT DISTINCT FROM before AND t."to" = after AND t.by = who) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'internal_error',
        MESSAGE = format('a %s must not go from %s to %s by %s', TG_ARGV[0], coalesce(before, '(nothing)'), after,
                         coalesce(nullif(who, ''), '(nobody)'));
    END IF;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_transition() IS
  'internal: for triggers that tests make: an error if a change of state is not in dtx_internal.saga_transitions()';
