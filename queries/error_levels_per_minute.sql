-- How much does the server complain, and how badly?
--
-- One row per minute and level. Watch `error` and above (crit, alert, emerg); a rise of warn often comes before them.
CREATE MATERIALIZED VIEW error_levels_per_minute AS
SELECT window_start, window_end, level, count(*) AS lines
FROM TUMBLE(errors, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, level;
