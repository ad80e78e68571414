-- How was the site doing, and what has changed since the day before?
--
-- Every morning, by mail (or whatever `ops` is): requests, errors and clients in figures, requests hour by hour, the
-- busiest clients and paths, and what failed; each beside the day before. On a site with many millions of requests a
-- day, let a materialized view count by hours and read that instead of `access`.
CREATE REPORT access_report EVERY INTERVAL '1 day' AT '07:00' AS
(
  SELECT count(*) AS requests,
         count(*) FILTER (WHERE status >= 500) AS errors,
         round(100.0 * count(*) FILTER (WHERE status >= 500) / nullif(count(*), 0), 2) AS "error rate, %",
         count(*) FILTER (WHERE status >= 400 AND status < 500) AS refused,
         count(DISTINCT client) AS clients,
         round(coalesce(sum(bytes), 0) / 1048576.0, 1) AS "MiB sent"
  FROM access
  WHERE ts >= period_start() AND ts < period_end()
) AS "In total",
(
  SELECT date_trunc('hour', ts) AS hour, count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS failed
  FROM access
  WHERE ts >= period_start() AND ts < period_end()
  GROUP BY hour
  ORDER BY hour
) AS "By hour",
(
  SELECT client, count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS failed
  FROM access
  WHERE ts >= period_start() AND ts < period_end()
  GROUP BY client
  ORDER BY requests DESC, client
  LIMIT 10
) AS "Who asked most",
(
  SELECT split_part(path, '?', 1) AS path, count(*) AS requests, count(DISTINCT client) AS clients
  FROM access
  WHERE ts >= period_start() AND ts < period_end()
  GROUP BY split_part(path, '?', 1)
  ORDER BY requests DESC, path
  LIMIT 10
) AS "What was asked for most",
(
  SELECT split_part(path, '?', 1) AS path, CAST(status AS TEXT) AS status, count(*) AS requests
  FROM access
  WHERE ts >= period_start() AND ts < period_end() AND status >= 400
  GROUP BY split_part(path, '?', 1), status
  ORDER BY requests DESC, path, status
  LIMIT 10
) AS "What failed most"
NOTIFY ops;
