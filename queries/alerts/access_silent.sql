-- Does a source no longer send?
--
-- Fires when no line at all came for five minutes by the clock, and is over with the next one. The predicate is
-- never true: silence is the only reason. Name another stream to watch that. Add NOTIFY and who is to be told.
CREATE ALERT access_silent ON access
  WHERE false
  ON NO DATA FIRE AFTER INTERVAL '5 minutes' SEVERITY 'critical'
  ANNOTATIONS (summary = 'the access log has stopped');
