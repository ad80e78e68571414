-- What kinds of errors are there?
--
-- One row per hour, module and code (AH00128 and the like, which Apache's documentation explains). NULL as code are
-- messages without one, such as those of PHP. `example` is the first of the messages in alphabetical order.
CREATE MATERIALIZED VIEW error_codes AS
SELECT window_start, window_end, module, code, level,
       count(*) AS lines,
       count(DISTINCT client) AS clients,
       min(message) AS example
FROM TUMBLE(errors, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, module, code, level;
