-- In which minutes did the site break, and for whom?
--
-- One row for each minute with at least ten failures that make up at least 2 % of the requests; no row means a healthy
-- minute. `paths` and `clients` say how wide it went: one path is a bug, all paths are a backend that is down.
CREATE MATERIALIZED VIEW access_5xx_bursts AS
SELECT failed.window_start, failed.window_end, total.requests, failed.errors, failed.paths, failed.clients,
       CAST(failed.errors AS DOUBLE) / total.requests AS error_rate
FROM (
  SELECT window_start, window_end,
         count(*) AS errors,
         count(DISTINCT split_part(path, '?', 1)) AS paths,
         count(DISTINCT client) AS clients
  FROM TUMBLE(access, ts, INTERVAL '1 minute')
  WHERE status >= 500
  GROUP BY window_start, window_end
  HAVING count(*) >= 10
) AS failed
JOIN (
  SELECT window_start, window_end, count(*) AS requests
  FROM TUMBLE(access, ts, INTERVAL '1 minute')
  GROUP BY window_start, window_end
) AS total
  ON failed.window_start = total.window_start AND failed.window_end = total.window_end
WHERE failed.errors * 50 >= total.requests;
