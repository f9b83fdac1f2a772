--
-- The identity of this coordinator, and its first worker.
--

SELECT dtx_internal.make_identity();

SELECT dtx_internal.record_boot();

-- Last: from now on there is something to resolve for.
SELECT dtx_internal.wake_resolver();
