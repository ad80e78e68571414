-- How are requests answered: how many of each status in an hour, and which share of the hour is that?
--
-- One row per hour and status. The shares of an hour add up to 1. A share of 404 that grows from one hour to the next
-- is a broken link or a scan; one of 304 that falls is a cache that stopped working.
CREATE MATERIALIZED VIEW access_status_mix AS
SELECT window_start, window_end, status, requests,
       CAST(requests AS DOUBLE) / sum(requests) OVER (PARTITION BY window_start, window_end) AS share
FROM (
  SELECT window_start, window_end, status, count(*) AS requests
  FROM TUMBLE(access, ts, INTERVAL '1 hour')
  GROUP BY window_start, window_end, status
) AS counted;
