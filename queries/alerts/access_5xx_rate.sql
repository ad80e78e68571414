-- Does the site fail?
--
-- Fires when more than one request in twenty was answered with 5xx throughout a minute that had a hundred or more,
-- and is over when that has not been so for two minutes. Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW access_5xx_rate_minutes AS
SELECT window_start, window_end,
       count(*) AS requests,
       count(*) FILTER (WHERE status >= 500) AS failed
FROM TUMBLE(access, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;

CREATE ALERT access_5xx_rate ON access_5xx_rate_minutes
  WHERE requests >= 100 AND failed * 20 > requests
  FOR INTERVAL '1 minute' KEEP FIRING FOR INTERVAL '2 minutes' SEVERITY 'critical'
  ANNOTATIONS (summary = '{{failed}} of {{requests}} requests of a minute failed');
