-- DBeaver: its PostgreSQL dialect.

-- name: session
SELECT current_schema(),session_user;

-- name: version
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname;

-- name: databases
-- differs: the databases that initdb makes (postgres, template0, template1) and its collation are not there
SELECT db.oid,db.datname,db.datdba,db.encoding,db.datistemplate,db.datallowconn,db.datconnlimit,db.dattablespace FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate OR db.datname ='logweir' ORDER BY db.datname;

-- name: types
SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C') AND t.oid < 10000 ORDER BY t.oid;

-- name: enums
SELECT * FROM pg_catalog.pg_enum ORDER BY oid;

-- name: settings
select * from pg_catalog.pg_settings where name='standard_conforming_strings' and setting = 'x';

-- name: string agg
select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word not in ('a','abs','absolute','action');

-- name: classes
-- differs: there are no TOAST tables
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key
FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace=2200 AND c.relkind not in ('i','I','c') ORDER BY c.relname;

-- name: columns
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.oid={class public.access} ORDER BY a.attnum;

-- name: sizes
select c.relname,pg_catalog.pg_total_relation_size(c.oid) >= 0 as total_rel_size,pg_catalog.pg_relation_size(c.oid) >= 0 as rel_size FROM pg_class c WHERE c.relnamespace=2200 ORDER BY 1;

-- name: constraints
SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, null as consrc_copy
FROM pg_catalog.pg_constraint c INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE c.conrelid={class public.access} ORDER BY c.oid;

-- name: indexes
SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans
FROM pg_catalog.pg_index i INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
WHERE i.indrelid={class public.access} ORDER BY tabrelname, c.relname;

-- name: inheritance
SELECT i.*,c.relnamespace FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhrelid={class public.access} AND c.oid=i.inhparent ORDER BY i.inhseqno;

-- name: rules
SELECT * FROM pg_catalog.pg_rewrite WHERE ev_class={class public.access};

-- name: triggers
SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description FROM pg_catalog.pg_trigger x LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0 WHERE x.tgrelid={class public.access} AND NOT x.tgisinternal;

-- name: procedures
SELECT p.oid as poid,p.*,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description FROM pg_catalog.pg_proc p LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0 WHERE p.pronamespace=2200 ORDER BY p.proname;

-- name: roles
SELECT a.oid,a.rolname,a.rolsuper,a.rolcanlogin,d.description FROM pg_catalog.pg_roles a LEFT OUTER JOIN pg_catalog.pg_shdescription d ON d.objoid=a.oid WHERE a.rolname !~ '^pg_' ORDER BY a.rolname;

-- name: tablespaces
SELECT t.oid,t.* FROM pg_catalog.pg_tablespace t ORDER BY t.oid;

-- name: languages
SELECT oid,lanname FROM pg_catalog.pg_language ORDER BY oid;

-- name: extensions
SELECT e.oid,cfg.tbls, n.nspname as schema_name, e.* FROM pg_catalog.pg_extension e JOIN pg_namespace n on n.oid =e.extnamespace left join (select ARRAY_AGG(ns.nspname || '.' || cls.relname) tbls, oid_ext from (select unnest(e1.extconfig) oid, e1.oid oid_ext from pg_catalog.pg_extension e1) c join pg_class cls on cls.oid=c.oid join pg_namespace ns on ns.oid = cls.relnamespace group by oid_ext) cfg on cfg.oid_ext = e.oid ORDER BY e.oid;

-- name: access methods
SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid;

-- name: encodings
SELECT c.contoencoding as encid , pg_catalog.pg_encoding_to_char(c.contoencoding) as encname FROM pg_catalog.pg_conversion c WHERE c.contoencoding = 6 GROUP BY c.contoencoding ORDER BY 2;

-- name: view definition
SELECT pg_catalog.pg_get_viewdef({class public.errors}, true) IS NOT NULL AS has;
