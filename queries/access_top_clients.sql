-- Who asks most?
--
-- The ten busiest clients of each hour. Many requests with few errors are a good customer or a proxy; many with most of
-- them refused (4xx) want a look in access_scanners.
CREATE MATERIALIZED VIEW access_top_clients AS
SELECT window_start, window_end, rank, client, requests, refused, bytes
FROM (
  SELECT window_start, window_end, client, requests, refused, bytes,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY requests DESC, client
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, client,
           count(*) AS requests,
           count(*) FILTER (WHERE status >= 400 AND status < 500) AS refused,
           coalesce(sum(bytes), 0) AS bytes
    FROM TUMBLE(access, ts, INTERVAL '1 hour')
    GROUP BY window_start, window_end, client
  ) AS counted
) AS ranked
WHERE rank <= 10;
