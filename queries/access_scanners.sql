-- Who is looking for holes?
--
-- One row per hour and client that was refused on at least ten different paths. A visitor with a stale bookmark misses
-- one path many times; a scanner misses many paths once. `example` is one of them, the first in alphabetical order.
CREATE MATERIALIZED VIEW access_scanners AS
SELECT window_start, window_end, client,
       count(DISTINCT path) AS refused_paths,
       count(*) AS refused,
       min(path) AS example,
       max(user_agent) AS user_agent
FROM TUMBLE(access, ts, INTERVAL '1 hour')
WHERE status IN (400, 401, 403, 404)
GROUP BY window_start, window_end, client
HAVING count(DISTINCT path) >= 10;
