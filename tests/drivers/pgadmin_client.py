"""pgAdmin 4, as a person uses it: adds a server, connects, opens each branch of the tree, looks at properties and SQL of a
stream and of views, the dashboard, and runs queries in its query tool. By its own HTTP interface, in one process.

Run by `tests/drivers/heavy`, with pgAdmin's own Python."""
import importlib.metadata
import json
import os
import pathlib
import random
import sys
import tempfile
import time

import pgadmin4

from report import ENDLESS, able, authority, database, host, password, port, user

home = pathlib.Path(tempfile.mkdtemp())
sys.path.insert(0, str(pathlib.Path(pgadmin4.__file__).parent if pgadmin4.__file__ else list(pgadmin4.__path__)[0]))
import config

config.SERVER_MODE = False
config.DATA_DIR = str(home)
for name, path in (("LOG_FILE", "log"), ("SQLITE_PATH", "pgadmin.db"), ("SESSION_DB_PATH", "sessions"), ("STORAGE_DIR", "storage"), ("AZURE_CREDENTIAL_CACHE_DIR", "azure")):
    setattr(config, name, str(home / path))
config.MASTER_PASSWORD_REQUIRED = False
config.USE_OS_SECRET_STORAGE = False
config.WTF_CSRF_ENABLED = False
config.CONSOLE_LOG_LEVEL = config.FILE_LOG_LEVEL = 40
config.UPGRADE_CHECK_ENABLED = False
from pgadmin import create_app

app = create_app()
app.config["WTF_CSRF_ENABLED"] = False
app.PGADMIN_RUNTIME, app.PGADMIN_INT_KEY = False, ""
app.run_before_app_start()
client = app.test_client()
wrong = []


def call(method, path, **given):
    answer = client.open(path, method=method, **given)
    text = answer.get_data(as_text=True)
    if answer.status_code >= 400:
        wrong.append(f"{method} {path}: {answer.status_code} {text[:600]}")
        return {}
    return answer.get_json() if answer.is_json else {"data": text}


def nodes(path):
    return {node["label"]: node for node in call("GET", path).get("data") or []}


given = {"name": "logs", "host": host, "port": port, "db": database, "username": user, "save_password": False, "connect_now": False,
         "role": None, "connection_params": [{"name": "sslmode", "keyword": "sslmode", "value": "verify-full" if authority else "disable"}] + ([{"name": "sslrootcert", "keyword": "sslrootcert", "value": authority}] if authority else [])}
call("GET", "/browser/")
made = call("POST", "/browser/server/obj/1/", data=json.dumps(given), content_type="application/json")
sid = made["node"]["_id"]
connected = call("POST", f"/browser/server/connect/1/{sid}", data=json.dumps({"password": password or "x", "save_password": False}), content_type="application/json")
assert connected.get("data", {}).get("connected"), (connected, wrong)
able("connect", "password, TLS" if authority else "yes")
server = f"1/{sid}"
databases = nodes(f"/browser/database/nodes/{server}/")
assert database in databases, (databases, wrong)
did = databases[database]["_id"]
call("POST", f"/browser/database/connect/{server}/{did}")
for branch in ("role", "tablespace"):
    nodes(f"/browser/{branch}/nodes/{server}/")
inside = f"{server}/{did}"
for branch in ("cast", "catalog", "event_trigger", "extension", "foreign_data_wrapper", "language", "publication", "subscription"):
    nodes(f"/browser/{branch}/nodes/{inside}/")
schemas = nodes(f"/browser/schema/nodes/{inside}/")
assert "public" in schemas, (schemas, wrong)
scid = schemas["public"]["_id"]
within = f"{inside}/{scid}"
found = {kind: nodes(f"/browser/{kind}/nodes/{within}/") for kind in (
    "table", "view", "mview", "function", "procedure", "sequence", "type", "domain", "collation", "foreign_table", "trigger_function", "aggregate", "operator",
    "fts_configuration", "fts_dictionary", "fts_parser", "fts_template")}
assert "events" in found["table"] and "plain" in found["view"] and "per_path" in found["mview"], ({kind: list(all) for kind, all in found.items()}, wrong)
for kind, name, columns in (("table", "events", ["ts", "path", "n"]), ("view", "plain", ["path", "n"]), ("mview", "per_path", ["path", "total"])):
    tid = found[kind][name]["_id"]
    if kind != "mview":
        assert list(nodes(f"/browser/column/nodes/{within}/{tid}/")) == columns, (nodes(f"/browser/column/nodes/{within}/{tid}/"), wrong)
    about = call("GET", f"/browser/{kind}/obj/{within}/{tid}")
    assert about.get("name") == name, (about, wrong)
    call("GET", f"/browser/{kind}/sql/{within}/{tid}")
    call("GET", f"/browser/{kind}/stats/{within}/{tid}") if kind == "table" else None
    for branch in ("index", "rule", "trigger") if kind == "table" else ():
        nodes(f"/browser/{branch}/nodes/{within}/{tid}/")
    call("GET", f"/browser/{kind}/dependency/{within}/{tid}")
    call("GET", f"/browser/{kind}/dependent/{within}/{tid}")
call("GET", f"/browser/database/obj/{server}/{did}")
call("GET", f"/browser/database/stats/{server}/{did}")
call("GET", f"/browser/schema/obj/{inside}/{scid}")
for part in ("activity", "locks", "prepared", "config"):
    call("GET", f"/dashboard/{part}/{sid}" + ("" if part == "config" else f"/{did}"))
call("GET", f"/dashboard/dashboard_stats/{sid}/{did}?chart_names=session_stats,tps_stats,ti_stats,to_stats,bio_stats")
browse = list(wrong)
for line in browse:
    print("  ", line, file=sys.stderr)

transaction = random.randint(1, 9999999)
call("POST", f"/sqleditor/initialize/sqleditor/{transaction}/{server}/{did}", data=json.dumps({"user": user, "role": None, "password": password or "x", "dbname": database}), content_type="application/json")


def query(sql):
    started = call("POST", f"/sqleditor/query_tool/start/{transaction}", data=json.dumps({"sql": sql, "explain_plan": None}), content_type="application/json")
    for _ in range(600):
        polled = call("GET", f"/sqleditor/poll/{transaction}").get("data", {})
        if polled.get("status") != "Busy":
            said = polled | {"started": started, "failed": list(wrong)}
            wrong.clear()
            return said
        time.sleep(0.1)
    raise SystemExit(f"{sql}: {started} {wrong}")


wrong.clear()
got = query("SELECT path, n, ts FROM events WHERE n < 10 ORDER BY n")
assert [row[1] for row in got["result"]] == ["1", "2", "3"], got
assert "nowhere" in json.dumps(query("SELECT * FROM nowhere"))
assert "cancel" in json.dumps(query("SET statement_timeout = 300; " + ENDLESS)).lower()
query("RESET statement_timeout")
able("cancel", "by `statement_timeout`")
able("parameters", "query tool")
assert not wrong, wrong
if browse:
    raise SystemExit(f"{len(browse)} of its questions failed")
able("introspect", "every branch of its tree, properties, dashboard")
print("pgAdmin", importlib.metadata.version("pgadmin4"), "ok")
