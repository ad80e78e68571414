-- When requests fail, what does the error log say in the same minute?
--
-- One row for each minute in which both the access log has 5xx answers and the error log has lines of level error, one
-- per module and code, the most frequent being `place` 1. It joins two streams: their clocks must agree to the minute.
CREATE MATERIALIZED VIEW error_beside_5xx AS
SELECT failed.window_start, failed.window_end, failed.failures, said.module, said.code, said.lines,
       CAST(row_number() OVER (
         PARTITION BY failed.window_start, failed.window_end ORDER BY said.lines DESC, said.module, said.code
       ) AS BIGINT) AS place
FROM (
  SELECT window_start, window_end, count(*) AS failures
  FROM TUMBLE(access, ts, INTERVAL '1 minute')
  WHERE status >= 500
  GROUP BY window_start, window_end
) AS failed
JOIN (
  SELECT window_start, window_end, module, code, count(*) AS lines
  FROM TUMBLE(errors, ts, INTERVAL '1 minute')
  WHERE level = 'error'
  GROUP BY window_start, window_end, module, code
) AS said
  ON failed.window_start = said.window_start AND failed.window_end = said.window_end;
