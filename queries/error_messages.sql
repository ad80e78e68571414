-- Which messages come most, when numbers and names in them are disregarded?
--
-- The twenty most frequent shapes of messages in each hour. Numbers become N, and paths and what stands in quotes
-- become *, so that 'File does not exist' is one row and not one per file.
CREATE MATERIALIZED VIEW error_messages AS
SELECT window_start, window_end, rank, level, message, lines
FROM (
  SELECT window_start, window_end, level, message, lines,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY lines DESC, level, message
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end, level, message, count(*) AS lines
    FROM (
      SELECT window_start, window_end, level,
             regexp_replace(
               regexp_replace(message, '[''"][^''"]*[''"]|/[^ ,)]*', '*', 'g'), '[0-9]+', 'N', 'g'
             ) AS message
      FROM TUMBLE(errors, ts, INTERVAL '1 hour')
    ) AS shaped
    GROUP BY window_start, window_end, level, message
  ) AS counted
) AS ranked
WHERE rank <= 20;
