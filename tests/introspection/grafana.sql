-- Grafana: its PostgreSQL data source, the query builder and expanded macros.

-- name: version
-- differs: other settings
SELECT current_setting('server_version_num')::int/100 AS version;

-- name: TimescaleDB
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';

-- name: tables
SELECT
  CASE WHEN
        quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(
            array_lower(string_to_array(current_setting('search_path'),','),1),
            array_upper(string_to_array(current_setting('search_path'),','),1)
          ) as i,
          string_to_array(current_setting('search_path'),',') s
        )
    THEN quote_ident(table_name)
    ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
  END AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental') AND table_type = 'BASE TABLE'
ORDER BY CASE WHEN quote_ident(table_schema) IN ('public') THEN 0 ELSE 1 END, 1;

-- name: columns
SELECT quote_ident(column_name) AS "column", data_type AS "type"
FROM information_schema.columns
WHERE
  CASE WHEN array_length(parse_ident, 1) = 2
    THEN quote_ident(table_schema) = parse_ident[1] AND quote_ident(table_name) = parse_ident[2]
    ELSE quote_ident(table_name) = 'access' AND quote_ident(table_schema) IN ('public')
  END;

-- name: columns of one table
SELECT quote_ident(column_name) AS "column", data_type AS "type"
FROM information_schema.columns
WHERE quote_ident(table_name) = 'access' AND quote_ident(table_schema) IN (
  SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
  FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i, string_to_array(current_setting('search_path'),',') s
);

-- name: time columns
SELECT quote_ident(column_name) FROM information_schema.columns WHERE quote_ident(table_name) = 'access' AND data_type IN ('timestamp without time zone','timestamp with time zone','bigint','integer','double precision','real');

-- name: metric table
SELECT quote_ident(table_name) as table_name, (SELECT quote_ident(column_name) as column_name FROM information_schema.columns c WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp') ORDER BY ordinal_position LIMIT 1) AS time_column
FROM information_schema.tables t WHERE t.table_schema = 'public' AND EXISTS (SELECT 1 FROM information_schema.columns c WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp')) ORDER BY table_name;

-- name: group by time
-- differs: the names of columns and their values are the same, a type is not: [('time', 1700, 701)]
SELECT floor(extract(epoch from ts)/60)*60 AS "time", path AS metric, count(*) AS n FROM access WHERE ts BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00Z' GROUP BY 1, 2 ORDER BY 1;

-- name: time filter
SELECT ts AS "time", bytes FROM access WHERE extract(epoch from ts) BETWEEN 1767225600 AND 1767312000 ORDER BY 1;
