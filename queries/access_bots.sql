-- How much of the traffic is not people?
--
-- One row per hour and kind of agent: search engines, crawlers of language models, crawlers of marketing tools, other
-- bots, scripts, availability checks, requests without an agent, and browsers. Agents call themselves what they like,
-- so 'browser' is everything that does not admit to being something else.
CREATE MATERIALIZED VIEW access_bots AS
SELECT window_start, window_end, kind, requests, clients, bytes,
       CAST(requests AS DOUBLE) / sum(requests) OVER (PARTITION BY window_start, window_end) AS share
FROM (
  SELECT window_start, window_end, kind,
         count(*) AS requests, count(DISTINCT client) AS clients, coalesce(sum(bytes), 0) AS bytes
  FROM (
    SELECT window_start, window_end, client, bytes,
           CASE
             WHEN user_agent IS NULL THEN 'none'
             WHEN regexp_like(user_agent, '(?i)uptime|pingdom|kube-probe|blackbox|healthcheck|statuscake')
               THEN 'availability check'
             WHEN regexp_like(user_agent, '(?i)googlebot|bingbot|yandexbot|duckduckbot|baiduspider|applebot|slurp')
               THEN 'search engine'
             WHEN regexp_like(user_agent, '(?i)gptbot|claudebot|ccbot|bytespider|amazonbot|perplexitybot')
               THEN 'language model'
             WHEN regexp_like(user_agent, '(?i)ahrefsbot|semrushbot|mj12bot|dotbot|dataforseo') THEN 'marketing'
             WHEN regexp_like(user_agent, '(?i)bot\b|bot/|crawl|spider') THEN 'other bot'
             WHEN regexp_like(user_agent, '(?i)curl|wget|python|go-http-client|java/|libwww|zgrab|okhttp') THEN 'script'
             ELSE 'browser'
           END AS kind
    FROM TUMBLE(access, ts, INTERVAL '1 hour')
  ) AS labelled
  GROUP BY window_start, window_end, kind
) AS counted;
