-- The streams of `logweir demo`; ACCESS_LOG and ERROR_LOG stand for the generated files.
CREATE TABLE access (*, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
  WITH (connector = 'file', path = 'ACCESS_LOG')
  FORMAT COMBINED;

CREATE TABLE errors (*, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
  WITH (connector = 'file', path = 'ERROR_LOG')
  FORMAT APACHE_ERROR;
