-- What uses the bandwidth?
--
-- The twenty paths that sent most bytes in each hour. `bytes_per_request` tells a large file asked for seldom from a
-- small one asked for often: the first belongs on a download server, the second in a cache.
CREATE MATERIALIZED VIEW access_heavy_paths AS
SELECT window_start, window_end, rank, path, requests, bytes, bytes / requests AS bytes_per_request
FROM (
  SELECT window_start, window_end, path, requests, bytes,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY bytes DESC, path
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, split_part(path, '?', 1) AS path, count(*) AS requests, sum(bytes) AS bytes
    FROM TUMBLE(access, ts, INTERVAL '1 hour')
    WHERE bytes > 0
    GROUP BY window_start, window_end, split_part(path, '?', 1)
  ) AS summed
) AS ranked
WHERE rank <= 20;
