-- Which sites send visitors?
--
-- One row per day and host that linked to the site, with the pages arrived at. The site's own host is among them: drop
-- it when reading, `WHERE host <> 'www.example.com'`.
CREATE MATERIALIZED VIEW access_referring_sites AS
SELECT window_start, window_end,
       lower(split_part(split_part(referer, '://', 2), '/', 1)) AS host,
       count(*) AS requests,
       count(DISTINCT client) AS visitors,
       count(DISTINCT path) AS pages
FROM TUMBLE(access, ts, INTERVAL '1 day')
WHERE referer LIKE 'http%://%' AND status < 400
GROUP BY window_start, window_end, lower(split_part(split_part(referer, '://', 2), '/', 1));
