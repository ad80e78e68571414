-- Who is guessing passwords?
--
-- Fires for a client that was refused for want of a valid password (401) thirty times within ten minutes. Add
-- NOTIFY and who is to be told; GROUP BY () WAIT INTERVAL '1 minute' makes one message of an attack by many
-- clients.
CREATE MATERIALIZED VIEW access_password_guessing_clients AS
SELECT window_start, window_end, client,
       count(*) AS failures,
       count(DISTINCT remote_user) AS names
FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
WHERE status = 401
GROUP BY window_start, window_end, client;

CREATE ALERT access_password_guessing ON access_password_guessing_clients
  WHERE failures >= 30
  KEY (client) SEVERITY 'warning'
  ANNOTATIONS (summary = '{{client}} tried {{failures}} passwords of {{names}} users in ten minutes');
