-- How many visitors come in an hour?
--
-- One row an hour. `visitors` counts addresses exactly; `visitors_and_agents` counts pairs of address and agent, which
-- is nearer to people where many share one address. Agents that call themselves bots, and those that say nothing, are
-- left out of both.
CREATE MATERIALIZED VIEW access_unique_visitors AS
SELECT window_start, window_end,
       count(DISTINCT client) AS visitors,
       count(DISTINCT concat(client, ' ', user_agent)) AS visitors_and_agents,
       count(*) AS requests
FROM TUMBLE(access, ts, INTERVAL '1 hour')
WHERE user_agent IS NOT NULL AND NOT regexp_like(user_agent, '(?i)bot|crawl|spider|curl|python|probe')
GROUP BY window_start, window_end;
