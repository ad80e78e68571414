-- Which endpoints are asked most, whatever their parameters and ids?
--
-- The twenty busiest endpoints of each ten minutes: the method and the path without its query, where numbers and long
-- hexadecimal ids behind a slash stand as :id. `failed` are answers of 500 and above, `empty` those without a body.
CREATE MATERIALIZED VIEW access_endpoints AS
SELECT window_start, window_end, rank, method, endpoint, requests, clients, failed, empty
FROM (
  SELECT window_start, window_end, method, endpoint, requests, clients, failed, empty,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY requests DESC, method, endpoint
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, method, endpoint,
           count(*) AS requests,
           count(DISTINCT client) AS clients,
           count(*) FILTER (WHERE status >= 500) AS failed,
           count(*) FILTER (WHERE coalesce(bytes, 0) = 0) AS empty
    FROM (
      SELECT window_start, window_end, method, client, status, bytes,
             regexp_replace(url_path(path), '/([0-9]+|[0-9a-fA-F-]{16,})\b', '/:id', 'g') AS endpoint
      FROM TUMBLE(access, ts, INTERVAL '10 minutes')
    ) AS named
    WHERE endpoint IS NOT NULL
    GROUP BY window_start, window_end, method, endpoint
  ) AS counted
) AS ranked
WHERE rank <= 20;
