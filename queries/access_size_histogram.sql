-- How are the sizes of answers spread?
--
-- One row per hour and bucket of a histogram whose buckets double in width: answers of at least `from_bytes` and less
-- than `below_bytes`. Unlike the percentiles of access_response_sizes its counts are exact, and those of several hours
-- can be added up.
CREATE MATERIALIZED VIEW access_size_histogram AS
SELECT window_start, window_end, from_bytes, greatest(2 * from_bytes, 1) AS below_bytes,
       pg_size_pretty(from_bytes) AS label, answers, bytes,
       CAST(answers AS DOUBLE) / sum(answers) OVER (PARTITION BY window_start, window_end) AS share
FROM (
  SELECT window_start, window_end, CAST(log_bucket(bytes) AS BIGINT) AS from_bytes,
         count(*) AS answers, sum(bytes) AS bytes
  FROM TUMBLE(access, ts, INTERVAL '1 hour')
  WHERE bytes IS NOT NULL
  GROUP BY window_start, window_end, CAST(log_bucket(bytes) AS BIGINT)
) AS counted;
