-- How large are the answers?
--
-- One row an hour, over answers that have a body. Half of them are no larger than `half`, 95 of 100 no larger than
-- `p95`. The percentiles are estimates (t-digest of 1000 centroids), good to a fraction of a percent: maintained or
-- computed anew, they may differ in the last digits. `largest` and `bytes` are exact.
CREATE MATERIALIZED VIEW access_response_sizes AS
SELECT window_start, window_end,
       count(*) AS answers,
       approx_percentile_cont(bytes, 0.5, 1000) AS half,
       approx_percentile_cont(bytes, 0.95, 1000) AS p95,
       approx_percentile_cont(bytes, 0.99, 1000) AS p99,
       max(bytes) AS largest,
       sum(bytes) AS bytes
FROM TUMBLE(access, ts, INTERVAL '1 hour')
WHERE bytes > 0
GROUP BY window_start, window_end;
