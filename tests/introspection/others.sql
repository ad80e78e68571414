-- Others: Hasura, Rails' ActiveRecord, Prisma, Tableau, LibreOffice Base.

-- name: ActiveRecord types
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'bool', 'timestamp', 'timestamptz', 'date', 'text') ORDER BY t.oid;

-- name: ActiveRecord other types
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typtype IN ('r', 'e', 'd') ORDER BY t.oid;

-- name: ActiveRecord tables
SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r','v','m','p','f') ORDER BY c.relname;

-- name: ActiveRecord columns
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS identity, attgenerated as attgenerated FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation WHERE a.attrelid = '"access"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- name: ActiveRecord primary keys
SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index WHERE indrelid = '"access"'::regclass AND indisprimary) i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx] ORDER BY i.idx;

-- name: ActiveRecord indexes
SELECT distinct i.relname, d.indisunique, d.indkey, pg_get_indexdef(d.indexrelid), pg_catalog.obj_description(i.oid, 'pg_class') AS comment, d.indisvalid, ARRAY(SELECT pg_get_indexdef(d.indexrelid, k + 1, true) FROM generate_subscripts(d.indkey, 1) AS k ORDER BY k) AS columns FROM pg_class t INNER JOIN pg_index d ON t.oid = d.indrelid INNER JOIN pg_class i ON d.indexrelid = i.oid LEFT JOIN pg_namespace n ON n.oid = t.relnamespace WHERE i.relkind IN ('i', 'I') AND d.indisprimary = 'f' AND t.relname = 'access' AND n.nspname = ANY (current_schemas(false)) ORDER BY i.relname;

-- name: ActiveRecord table comment
SELECT pg_catalog.obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'access' AND c.relkind IN ('r','p') AND n.nspname = ANY (current_schemas(false));

-- name: ActiveRecord schemas
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_.*' AND nspname NOT IN ('information_schema') ORDER by nspname;

-- name: ActiveRecord extensions
SELECT pg_extension.extname, n.nspname AS schema FROM pg_extension JOIN pg_namespace n ON pg_extension.extnamespace = n.oid;

-- name: Prisma tables
SELECT tbl.relname AS table_name, namespace.nspname as namespace, (tbl.relhassubclass and tbl.relkind = 'p') as is_partition, (tbl.relhassubclass and tbl.relkind = 'r') as has_subclass, tbl.relrowsecurity as has_row_level_security, reloptions, obj_description(tbl.oid, 'pg_class') as description FROM pg_class AS tbl INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace WHERE (tbl.relkind = 'r' OR tbl.relkind = 'p') AND namespace.nspname = ANY ('{public}') ORDER BY namespace, table_name;

-- name: Prisma views
SELECT views.viewname AS view_name, views.schemaname AS namespace, obj_description(class.oid, 'pg_class') AS description FROM pg_catalog.pg_views views INNER JOIN pg_catalog.pg_namespace ns ON views.schemaname = ns.nspname INNER JOIN pg_catalog.pg_class class ON class.relnamespace = ns.oid AND class.relname = views.viewname WHERE schemaname = ANY ('{public}');

-- name: Prisma columns
-- differs: values: ROWS pg=36 lw=39 only_pg=[] only_lw=[('public', 'per_path', 'n', 'bigint', '64', '0', '2', 'None', 'bigint', 'pg_catalog', 'int8', 'None', '
SELECT oid.namespace, info.table_name, info.column_name, format_type(att.atttypid, att.atttypmod) as formatted_type, info.numeric_precision, info.numeric_scale, info.numeric_precision_radix, info.datetime_precision, info.data_type, info.udt_schema as type_schema_name, info.udt_name as full_data_type, pg_get_expr(attdef.adbin, attdef.adrelid) AS column_default, info.is_nullable, info.is_identity, info.character_maximum_length, col_description(att.attrelid, ordinal_position) AS description
FROM information_schema.columns info JOIN pg_attribute att ON att.attname = info.column_name JOIN (SELECT pg_class.oid, relname, pg_namespace.nspname as namespace FROM pg_class JOIN pg_namespace on pg_namespace.oid = pg_class.relnamespace AND pg_namespace.nspname = ANY ('{public}') WHERE reltype > 0) as oid on oid.oid = att.attrelid AND relname = info.table_name AND namespace = info.table_schema LEFT OUTER JOIN pg_attrdef attdef ON attdef.adrelid = att.attrelid AND attdef.adnum = att.attnum AND table_schema = namespace
WHERE table_schema = ANY ('{public}') ORDER BY namespace, table_name, ordinal_position;

-- name: Prisma indexes
-- differs: values: [('column_index', '0', '1')]
WITH rawindex AS (SELECT indrelid, indexrelid, indisunique, indisprimary, unnest(indkey) AS indkeyid, generate_subscripts(indkey, 1) AS indkeyidx, unnest(indclass) AS indclass, unnest(indoption) AS indoption FROM pg_index WHERE indpred IS NULL AND NOT indisexclusion)
SELECT schemainfo.nspname AS namespace, indexinfo.relname AS index_name, tableinfo.relname AS table_name, columninfo.attname AS column_name, rawindex.indisunique AS is_unique, rawindex.indisprimary AS is_primary_key, rawindex.indkeyidx AS column_index, opclass.opcname AS opclass, opclass.opcdefault AS opcdefault, indexaccess.amname AS index_algo, CASE rawindex.indoption & 1 WHEN 1 THEN 'DESC' ELSE 'ASC' END AS column_order
FROM rawindex INNER JOIN pg_class AS tableinfo ON tableinfo.oid = rawindex.indrelid INNER JOIN pg_class AS indexinfo ON indexinfo.oid = rawindex.indexrelid INNER JOIN pg_namespace AS schemainfo ON schemainfo.oid = tableinfo.relnamespace LEFT JOIN pg_attribute AS columninfo ON columninfo.attrelid = tableinfo.oid AND columninfo.attnum = rawindex.indkeyid INNER JOIN pg_am AS indexaccess ON indexaccess.oid = indexinfo.relam LEFT JOIN pg_opclass AS opclass ON opclass.oid = rawindex.indclass
WHERE schemainfo.nspname = ANY ('{pg_catalog}') ORDER BY namespace, table_name, index_name, column_index;

-- name: Tableau tables
select n.nspname, c.relname, c.relkind, pg_catalog.obj_description(c.oid, 'pg_class') from pg_catalog.pg_class c, pg_catalog.pg_namespace n where relkind in ('r', 'v', 'm', 'f', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') and n.oid = relnamespace order by nspname, relname;

-- name: Tableau pages
select relname, relpages >= 0 as has from pg_class where relname = 'access' and relnamespace = (select oid from pg_namespace where nspname = 'public');

-- name: LibreOffice tables
SELECT DISTINCT ON (pg_namespace.nspname, relname) pg_namespace.nspname, relname, relkind, pg_description.description FROM pg_namespace, pg_class LEFT JOIN pg_description ON pg_class.oid = pg_description.objoid WHERE relnamespace = pg_namespace.oid AND (relkind = 'r' OR relkind = 'v') AND pg_namespace.nspname LIKE 'public' AND relname LIKE '%' ORDER BY pg_namespace.nspname, relname;

-- name: LibreOffice columns
SELECT pg_namespace.nspname, pg_class.relname, pg_attribute.attname, pg_type.typname, pg_attribute.atttypmod, pg_attribute.attnotnull, pg_type.typdefault, pg_type.typtype, pg_attrdef.adbin, pg_description.description, pg_type.typbasetype, pg_attribute.attnum FROM pg_class, pg_attribute LEFT JOIN pg_attrdef ON pg_attribute.attrelid = pg_attrdef.adrelid AND pg_attribute.attnum = pg_attrdef.adnum LEFT JOIN pg_description ON pg_attribute.attrelid = pg_description.objoid AND pg_attribute.attnum=pg_description.objsubid, pg_type, pg_namespace WHERE pg_attribute.attrelid = pg_class.oid AND pg_attribute.atttypid = pg_type.oid AND pg_class.relnamespace = pg_namespace.oid AND NOT pg_attribute.attisdropped AND pg_namespace.nspname LIKE 'public' AND pg_class.relname LIKE 'access' AND pg_attribute.attname LIKE '%' AND pg_attribute.attnum > 0 ORDER BY pg_namespace.nspname, pg_class.relname, pg_attribute.attnum;

-- name: LibreOffice keys
SELECT conname, contype, confupdtype, confdeltype, class.relname, nmsp.nspname, conkey, confkey FROM pg_constraint INNER JOIN pg_class class ON conrelid = class.oid INNER JOIN pg_namespace nmsp ON class.relnamespace = nmsp.oid WHERE class.relname = 'access' AND nmsp.nspname = 'public';

-- name: LibreOffice types
SELECT pg_type.typname AS typename, pg_type.typtype, pg_type.typlen, pg_type.typnotnull, pg_namespace.nspname FROM pg_type LEFT JOIN pg_namespace ON pg_type.typnamespace=pg_namespace.oid WHERE pg_type.typtype = 'b' OR pg_type.typtype = 'p' ORDER BY 5, 1;

-- name: Hasura functions
SELECT p.proname::text AS function_name, pn.nspname::text AS function_schema, pd.description, CASE WHEN p.provariadic = (0)::oid THEN false ELSE true END AS has_variadic, rt.typname::text AS return_type_name, p.proretset AS returns_set, p.pronargdefaults AS default_args FROM pg_proc p JOIN pg_namespace pn ON pn.oid = p.pronamespace JOIN pg_type rt ON rt.oid = p.prorettype LEFT JOIN pg_description pd ON p.oid = pd.objoid AND pd.objsubid = 0 WHERE pn.nspname = 'public' AND p.prokind = 'f';

-- name: Hasura tables
SELECT schema.nspname AS table_schema, "table".relname AS table_name, "table".oid AS table_oid, description.description, "table".relkind FROM pg_catalog.pg_class "table" JOIN pg_catalog.pg_namespace schema ON schema.oid = "table".relnamespace LEFT JOIN pg_catalog.pg_description description ON description.classoid = 'pg_catalog.pg_class'::regclass AND description.objoid = "table".oid AND description.objsubid = 0 WHERE "table".relkind IN ('r', 't', 'v', 'm', 'f', 'p') AND schema.nspname NOT LIKE 'pg_%' AND schema.nspname NOT IN ('information_schema') ORDER BY 1, 2;
