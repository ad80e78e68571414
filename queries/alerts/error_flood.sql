-- Is the error log filling the disk?
--
-- Fires when a minute has a thousand error lines or more and far more than is usual lately: what has always been
-- loud is no news. Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW error_flood_minutes AS
SELECT window_start, window_end, count(*) AS lines, max(message) AS example
FROM TUMBLE(errors, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;

CREATE ALERT error_flood ON error_flood_minutes
  WHERE lines >= 1000 AND anomaly(lines) > 10
  KEEP FIRING FOR INTERVAL '5 minutes' SEVERITY 'warning'
  ANNOTATIONS (summary = '{{lines}} error lines a minute, such as: {{example}}');
