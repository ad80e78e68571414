-- How does traffic run over the day?
--
-- One row an hour, in the form that dashboards draw: `hour` is the time axis. It is written with date_trunc, as
-- dashboards do; that is the same as a tumbling window of one hour. `clients` is an estimate (HyperLogLog), good to a
-- few percent and far smaller to keep than the exact count of access_unique_visitors.
CREATE MATERIALIZED VIEW access_traffic_by_hour AS
SELECT date_trunc('hour', ts) AS hour,
       count(*) AS requests,
       coalesce(sum(bytes), 0) AS bytes,
       CAST(approx_distinct(client) AS BIGINT) AS clients
FROM access
GROUP BY date_trunc('hour', ts);
