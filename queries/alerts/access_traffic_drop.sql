-- Has traffic fallen away?
--
-- Fires when two minutes in a row had less than half of the requests that were usual lately, and so few that it is
-- rare by chance; needs no number for how much traffic there is. Minutes without any line count as 0, once later
-- lines, or the stream's idle_timeout, have closed them. Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW access_traffic_drop_minutes AS
SELECT window_start, window_end, count(*) AS requests
FROM TUMBLE(access, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE FILL ZERO;

CREATE ALERT access_traffic_drop ON access_traffic_drop_minutes
  WHERE anomaly(requests, 20) < -5 AND requests * 2 < ewma_lower(requests, 0.1, 0)
  FOR INTERVAL '2 minutes' SEVERITY 'critical'
  ANNOTATIONS (summary = 'only {{requests}} requests a minute');
