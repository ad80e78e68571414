-- With which methods and protocols do clients ask?
--
-- One row per hour, method and protocol. NULL in both is a request that was no HTTP at all, such as TLS sent to the
-- plain port. Methods that the site does not serve show up with `refused` equal to `requests`.
CREATE MATERIALIZED VIEW access_methods_protocols AS
SELECT window_start, window_end, method, protocol,
       count(*) AS requests,
       count(*) FILTER (WHERE status >= 400 AND status < 500) AS refused,
       count(DISTINCT client) AS clients
FROM TUMBLE(access, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, method, protocol;
