-- What is read most right now?
--
-- The ten most requested paths of the last five minutes, renewed every second: ten rows for each second's window, the
-- newest window being the current list. Paths with the same number of requests are ranked by name, so that the list
-- does not flicker. Files that pages are made of are left out, as they would fill it.
CREATE MATERIALIZED VIEW access_top_urls AS
SELECT window_start, window_end, rank, path, requests
FROM (
  SELECT window_start, window_end, path, requests,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY requests DESC, path
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, path, count(*) AS requests
    FROM HOP(access, ts, INTERVAL '1 second', INTERVAL '5 minutes')
    WHERE NOT regexp_like(path, '\.(css|js|png|jpe?g|gif|svg|webp|ico|woff2?)(\?|$)')
    GROUP BY window_start, window_end, path
  ) AS counted
) AS ranked
WHERE rank <= 10;
