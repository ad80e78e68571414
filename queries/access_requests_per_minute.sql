-- How busy is the site, and how much of it fails?
--
-- One row a minute. `error_rate` is the share of requests answered with 5xx, from 0 to 1; `requests` says how much
-- traffic that share is of, since one failure among two requests is no outage.
CREATE MATERIALIZED VIEW access_requests_per_minute AS
SELECT window_start, window_end,
       count(*) AS requests,
       count(*) FILTER (WHERE status >= 500) AS server_errors,
       count(*) FILTER (WHERE status >= 400 AND status < 500) AS client_errors,
       CAST(count(*) FILTER (WHERE status >= 500) AS DOUBLE) / count(*) AS error_rate,
       coalesce(sum(bytes), 0) AS bytes
FROM TUMBLE(access, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;
