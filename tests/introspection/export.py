"""Writes the catalog of a new PostgreSQL 15 database as the text that src/catalog/postgres/postgres15.zst holds.

In a cluster made by `initdb -U logweir`:
    CREATE DATABASE base TEMPLATE template0;  and in it
    DROP EXTENSION plpgsql; ALTER SCHEMA public OWNER TO logweir;
Then: python3 export.py -h … -U logweir base | zstd -19 > postgres15.zst   (the arguments are psql's)
"""
import subprocess,sys
P=["psql","-qAtX"]+sys.argv[1:]
def q(sql): 
    return subprocess.run(P+["-F","\t","-c",sql],check=True,capture_output=True,text=True).stdout.splitlines()
EMPTY={"pg_database","pg_authid","pg_auth_members","pg_statistic","pg_statistic_ext_data","pg_depend","pg_shdepend","pg_init_privs","pg_db_role_setting","pg_largeobject","pg_largeobject_metadata"}
REPLACED={("pg_rewrite","ev_action"):"null",("pg_rewrite","ev_qual"):"null",("pg_proc","prosqlbody"):"null",("pg_proc","proargdefaults"):"null"}
ONLY={"pg_collation":"oid < 1000","pg_type":"oid < 16384","pg_shdescription":"objoid < 16384 and classoid <> 'pg_database'::regclass"}
out=[]
for line in q("""select c.oid, n.nspname, c.relname, c.relkind from pg_class c join pg_namespace n on n.oid=c.relnamespace
  where n.nspname in ('pg_catalog','information_schema') and relkind in ('r','v') and c.oid<16384 order by c.relname, n.nspname"""):
    oid,schema,name,kind=line.split("\t")
    print("r",oid,schema,name,kind,sep="\t")
    cols=[l.split("\t") for l in q(f"""select a.attname, (case when t.typtype='d' then b.typname else t.typname end), a.attnotnull, a.atttypid from pg_attribute a join pg_type t on t.oid=a.atttypid left join pg_type b on b.oid=t.typbasetype where attrelid={oid} and attnum>0 and not attisdropped order by attnum""")]
    for c in cols: print("c",*c[:3],sep="\t")
    if kind=='v':
        d="\n".join(q(f"select pg_get_viewdef({oid}, true)"))
        print("v",d.strip().rstrip(";").replace("\\","\\\\").replace("\n","\\n"),sep="\t")
    elif name not in EMPTY:
        sel=",".join(REPLACED.get((name,c[0]),(chr(34)+c[0]+chr(34)+("::oid" if c[1]=="regproc" else ""))) for c in cols)
        w=ONLY.get(name); 
        for l in q(f"copy (select {sel} from {schema}.{name} {'where '+w if w else ''} order by 1) to stdout"): print("d",l,sep="\t")
print("r","0","functions","pg_get_keywords","f",sep="\t")
for n,t in [("word","text"),("catcode","char"),("barelabel","bool"),("catdesc","text"),("baredesc","text")]: print("c",n,t,"f",sep="\t")
for l in q("copy (select * from pg_get_keywords()) to stdout"): print("d",l,sep="\t")
