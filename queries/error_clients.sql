-- Which clients cause errors?
--
-- The ten clients with most lines of level error or worse in each hour. `codes` is the number of different kinds of
-- error: one kind is a broken page or program, many are somebody trying things.
CREATE MATERIALIZED VIEW error_clients AS
SELECT window_start, window_end, rank, client, lines, codes
FROM (
  SELECT window_start, window_end, client, lines, codes,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY lines DESC, client
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, client, count(*) AS lines, count(DISTINCT code) AS codes
    FROM TUMBLE(errors, ts, INTERVAL '1 hour')
    WHERE client IS NOT NULL AND level IN ('error', 'crit', 'alert', 'emerg')
    GROUP BY window_start, window_end, client
  ) AS counted
) AS ranked
WHERE rank <= 10;
