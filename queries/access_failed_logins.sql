-- Is somebody guessing passwords?
--
-- One row per ten minutes, renewed every minute, and client that was refused for want of a valid password (401). Many
-- names from one client are a list being tried; a few failures of one name are a forgotten password.
CREATE MATERIALIZED VIEW access_failed_logins AS
SELECT window_start, window_end, client,
       count(*) AS failures,
       count(DISTINCT remote_user) AS names,
       min(remote_user) AS first_name
FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
WHERE status = 401
GROUP BY window_start, window_end, client;
