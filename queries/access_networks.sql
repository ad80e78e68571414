-- Which networks does the traffic come from?
--
-- One row per ten minutes and neighbourhood of clients: the /24 of an IPv4 address, the /48 of an IPv6 address, which
-- mostly belong to one owner each. Many `clients` of one network with few requests each are one crawler or attack that
-- changes its addresses, which access_top_clients does not show. Clients that are not addresses have no network.
CREATE MATERIALIZED VIEW access_networks AS
SELECT window_start, window_end, rank, network, private, requests, clients, failed, bytes
FROM (
  SELECT window_start, window_end, network, private, requests, clients, failed, bytes,
         CAST(row_number() OVER (
           PARTITION BY window_start, window_end ORDER BY requests DESC, network
         ) AS BIGINT) AS rank
  FROM (
    SELECT window_start, window_end,
           ip_prefix(client, 24, 48) AS network,
           ip_is_private(client) AS private,
           count(*) AS requests,
           count(DISTINCT client) AS clients,
           count(*) FILTER (WHERE status >= 400) AS failed,
           coalesce(sum(bytes), 0) AS bytes
    FROM TUMBLE(access, ts, INTERVAL '10 minutes')
    GROUP BY window_start, window_end, ip_prefix(client, 24, 48), ip_is_private(client)
  ) AS counted
) AS ranked
WHERE rank <= 20;
