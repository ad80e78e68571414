-- Which bots come, and do they behave?
--
-- One row per hour and bot: crawlers by the name they give, and the tools that scripts use, such as curl. Many refused
-- or missing pages are a bot that guesses; `robots_txt` says whether it asked what it may read. access_bots has the
-- share of all bots in the traffic.
CREATE MATERIALIZED VIEW access_bots_by_family AS
SELECT window_start, window_end,
       coalesce(user_agent_family(user_agent), 'other') AS family,
       count(*) AS requests,
       count(DISTINCT client) AS clients,
       count(*) FILTER (WHERE status IN (401, 403, 429)) AS refused,
       count(*) FILTER (WHERE status = 404) AS missing,
       count(*) FILTER (WHERE url_path(path) = '/robots.txt') AS robots_txt,
       coalesce(sum(bytes), 0) AS bytes
FROM TUMBLE(access, ts, INTERVAL '1 hour')
WHERE is_bot(user_agent)
GROUP BY window_start, window_end, coalesce(user_agent_family(user_agent), 'other');
