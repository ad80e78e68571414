-- Which links lead nowhere, and on which page are they?
--
-- One row per day, missing path and page that links to it. Referrers on your own site are links to repair; those on
-- other sites call for a redirect. Requests without a referrer are left out: they are typed, or guessed by scanners.
CREATE MATERIALIZED VIEW access_broken_links AS
SELECT window_start, window_end, path, referer, count(*) AS requests, count(DISTINCT client) AS clients
FROM TUMBLE(access, ts, INTERVAL '1 day')
WHERE status IN (404, 410) AND referer IS NOT NULL
GROUP BY window_start, window_end, path, referer;
