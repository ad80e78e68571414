-- Who is looking for holes right now?
--
-- Fires for a client that was refused on thirty different paths within ten minutes. A visitor with a stale bookmark
-- misses one path many times; a scanner misses many paths once. Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW access_scanning_clients AS
SELECT window_start, window_end, client,
       count(DISTINCT path) AS refused_paths,
       max(user_agent) AS user_agent
FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
WHERE status IN (400, 401, 403, 404)
GROUP BY window_start, window_end, client;

CREATE ALERT access_scanning ON access_scanning_clients
  WHERE refused_paths >= 30
  KEY (client) SEVERITY 'warning'
  ANNOTATIONS (summary = '{{client}} ({{user_agent}}) was refused on {{refused_paths}} paths in ten minutes');
