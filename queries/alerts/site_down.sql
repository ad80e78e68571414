-- Is a site down?
--
-- Fires for a URL when all of at least two requests of a minute failed. Reads the stream that this makes:
--     CREATE TABLE checks (ts timestamptz, url text, ok boolean, status int, latency_ms double, bytes bigint,
--                          error text)
--     WITH (connector = 'http_check', url = 'https://www.example.org/', every = '10 seconds') FORMAT JSON.
-- Add NOTIFY and who is to be told.
CREATE MATERIALIZED VIEW site_down_minutes AS
SELECT window_start, window_end, url,
       count(*) AS requests,
       count(*) FILTER (WHERE NOT ok) AS failed,
       max(status) AS status,
       max(error) AS error
FROM TUMBLE(checks, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, url;

CREATE ALERT site_down ON site_down_minutes
  WHERE requests >= 2 AND failed = requests
  KEY (url) KEEP FIRING FOR INTERVAL '1 minute' SEVERITY 'critical'
  ANNOTATIONS (summary = '{{url}} does not answer: {{error}} (status {{status}})');
