-- Which paths fail?
--
-- One row per minute and path, without the query string, so that all searches are one path. Read it with
-- `WHERE requests >= 20 ORDER BY error_rate DESC`: among few requests a rate says little.
CREATE MATERIALIZED VIEW access_error_rate_by_path AS
SELECT window_start, window_end,
       split_part(path, '?', 1) AS path,
       count(*) AS requests,
       count(*) FILTER (WHERE status >= 500) AS errors,
       CAST(count(*) FILTER (WHERE status >= 500) AS DOUBLE) / count(*) AS error_rate
FROM TUMBLE(access, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, split_part(path, '?', 1);
