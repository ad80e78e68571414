-- Is a disk nearly full?
--
-- Fires when a disk was more than nine tenths full throughout two minutes. Reads the stream that this makes:
--     CREATE TABLE metrics (ts timestamptz, host text, metric text, instance text, value double)
--     WITH (connector = 'host_metrics', disks = '/,/var') FORMAT JSON.
-- Other metrics (cpu_percent, memory_used_percent) are watched the same way. Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW host_disk_full_minutes AS
SELECT window_start, window_end, host, instance, min(value) AS used
FROM TUMBLE(metrics, ts, INTERVAL '1 minute')
WHERE metric = 'disk_used_percent'
GROUP BY window_start, window_end, host, instance;

CREATE ALERT host_disk_full ON host_disk_full_minutes
  WHERE used > 90
  KEY (host, instance) FOR INTERVAL '2 minutes' SEVERITY 'critical'
  ANNOTATIONS (summary = '{{instance}} on {{host}} is {{used}} % full');
