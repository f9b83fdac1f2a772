--
-- The identity of this coordinator, and its first worker.
--

SELECT dtx._make_identity();

SELECT dtx._record_boot();

-- Last: from now on there is something to resolve for.
SELECT dtx._wake_resolver();
