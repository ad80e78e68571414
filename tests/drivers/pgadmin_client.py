"""pgAdmin 4, as a person uses it: adds a server, connects, opens every branch of the tree and all tabs and dialogs of its
nodes, looks at the dashboard, runs, explains and cancels queries in the query tool, and pages through rows. By its own HTTP
interface, in one process. A statement that the server refuses fails the test, also where pgAdmin would not show it.

Run by `tests/drivers/heavy`, with pgAdmin's own Python."""
import importlib.metadata
import json
import pathlib
import random
import sys
import tempfile
import time

import pgadmin4
import psycopg

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
config.CONSOLE_LOG_LEVEL = config.FILE_LOG_LEVEL = 50
config.UPGRADE_CHECK_ENABLED = False
from pgadmin import create_app
from werkzeug.exceptions import HTTPException

app = create_app()
app.config["WTF_CSRF_ENABLED"] = False
app.PGADMIN_RUNTIME, app.PGADMIN_INT_KEY = False, ""
app.run_before_app_start()
client = app.test_client()
routes = app.url_map.bind("localhost")
wrong, asking = [], None


def watched(execute):
    """The same, telling of statements that the server refuses."""
    def refused(query, err):
        wrong.append(f"{asking}: {err}\n{query.decode() if isinstance(query, bytes) else query}")

    def run(self, query, *given, **named):
        try:
            return execute(self, query, *given, **named)
        except psycopg.Error as err:
            refused(query, err)
            raise

    async def run_async(self, query, *given, **named):
        try:
            return await execute(self, query, *given, **named)
        except psycopg.Error as err:
            refused(query, err)
            raise

    return run_async if "async" in execute.__module__ else run


psycopg.Cursor.execute = watched(psycopg.Cursor.execute)
psycopg.AsyncCursor.execute = watched(psycopg.AsyncCursor.execute)


def call(method, path, body=None):
    """What pgAdmin answers, as JSON or text; `None` if it has no such page."""
    global asking
    asking = f"{method} {path}"
    answer = client.open(path, method=method, **({} if body is None else {"data": json.dumps(body), "content_type": "application/json"}))
    if answer.status_code == 406:
        return None
    if answer.status_code >= 400:
        wrong.append(f"{asking}: {answer.status_code} {answer.get_data(as_text=True)[:600]}")
    return answer.get_json() if answer.is_json else answer.get_data(as_text=True)


def data(method, path, body=None):
    answer = call(method, path, body)
    return answer.get("data") if isinstance(answer, dict) else answer


def settled():
    """That nothing was wrong so far."""
    assert not wrong, f"{len(wrong)} things are wrong:\n" + "\n".join(wrong)


# ---- connecting ----

secure = {"sslmode": "verify-full", "sslrootcert": authority} if authority else {"sslmode": "disable"}
call("GET", "/browser/")
made = call("POST", "/browser/server/obj/1/", {
    "name": "logs", "host": host, "port": port, "db": database, "username": user, "save_password": False, "connect_now": False, "role": None,
    "connection_params": [{"name": name, "keyword": name, "value": value} for name, value in secure.items()]})
sid = made["node"]["_id"]
server = f"1/{sid}"
credentials = {"user": user, "role": None, "password": password or "x", "dbname": database}
assert data("POST", f"/browser/server/connect/{server}", {"password": password or "x", "save_password": False})["connected"], wrong
settled()
able("connect", "password, TLS" if authority else "yes")

# ---- the tree ----

# Tabs beside the tree, and the scripts of the menu of a node.
TABS = ["obj", "sql", "stats", "dependency", "dependent", "select_sql", "insert_sql", "update_sql", "delete_sql", "exec_sql", "count_rows"]
# Lists that dialogs ask for, by the kind of node. Some that pgAdmin makes wrong statements or errors of are left out.
LISTS = {kind: [] for kind in {rule.rule.split("/")[2] for rule in app.url_map.iter_rules() if rule.rule.startswith("/browser/")}}
for rule in app.url_map.iter_rules():
    parts = rule.rule.split("/")
    if parts[1] == "browser" and "GET" in rule.methods and parts[3:] and (parts[3].startswith("get_") or parts[3] in ("vopts", "fopts", "avails", "all_tables", "tokens", "dictionaries")):
        if parts[3] not in ("get_attach_tables", "get_inherits", "get_columns", "get_oper_class", "get_builtin_locale", "get_support_functions", "get_all_columns", "get_publications", "get_canonical", "get_tblspc", "get_databases"):
            LISTS[parts[2]].append(parts[3])
# Of what the system's own schemas hold, so many of a kind are opened.
SAMPLE = 2
found, opened = {}, set()


def there(path):
    """Whether pgAdmin has this page."""
    try:
        return bool(routes.match(path, method="GET"))
    except HTTPException:
        return False


def look(path):
    if path in opened or not there(path):
        return []
    opened.add(path)
    answer = data("GET", path)
    return answer if isinstance(answer, list) else []


def node(kind, path, own):
    """Opens a node: its tabs and what is below it. `own`: it is no part of the system."""
    if kind == "database":
        call("POST", f"/browser/database/connect/{path}")
    for tab in TABS + (["configs"] if kind == "rule" else []):
        look(f"/browser/{kind}/{tab}/{path}")
    for child in look(f"/browser/{kind}/children/{path}"):
        below(child, path, own and kind != "catalog")


def below(child, path, own):
    if child["_type"].startswith("coll-"):
        collection(child["_type"].removeprefix("coll-"), path, own)
    else:
        node(child["_type"], f"{path}/{child['_id']}", own)


def collection(kind, path, own):
    nodes = look(f"/browser/{kind}/nodes/{path}/")
    for tab in ["obj", "stats"] + LISTS.get(kind, []):
        # Views have no sizes, and no script without a view.
        look(f"/browser/{kind}/{tab}/{path}/")
    if kind == "database":
        nodes = [one for one in nodes if one["label"] == database]
    if own:
        found.setdefault(kind, {}).update({one["label"]: f"{path}/{one['_id']}" for one in nodes})
    for child in nodes if own else nodes[:SAMPLE]:
        below(child, path, own)


node("server", server, True)
place = found["database"][database]
did = place.rsplit("/", 1)[1]
assert {"public"} <= set(found["schema"]) and {"pg_catalog"} <= {name.split("(")[-1].rstrip(")") for name in found["catalog"]}, found
for kind, name, columns in (("table", "events", ["ts", "path", "n"]), ("view", "plain", ["path", "n"]), ("mview", "per_path", ["path", "total"])):
    path = found[kind][name]
    assert call("GET", f"/browser/{kind}/obj/{path}")["name"] == name
    assert [one["label"] for one in call("GET", f"/browser/column/nodes/{path}/")["data"]] == columns
for path in (f"types/{sid}/{did}", f"search/{sid}/{did}?text=event&type=all"):
    assert data("GET", f"/search_objects/{path}")
call("GET", f"/grant_wizard/{sid}/{did}/{found['schema']['public'].rsplit('/', 1)[1]}/schema/")
for path in (f"/backup/objects/{sid}/{did}", f"/schema_diff/schemas/{sid}/{did}", f"/erd/prequisite/1/{place}"):
    call("GET", path)
settled()

# ---- the dashboard ----


def dashboard(path):
    return call("GET", f"/dashboard/{path}")


for which in (sid, f"{sid}/{did}"):
    state = dashboard(f"activity/{which}")[0]
    assert any(one["application_name"].startswith("pgAdmin") for one in state["activity"]), state
    assert dashboard(f"dashboard_stats/{which}?chart_names=session_stats,tps_stats,ti_stats,to_stats,bio_stats")["session_stats"]["Total"] > 0
for path in ("config", "replication_slots", "replication_stats", "log_formats"):
    dashboard(f"{path}/{sid}")
settled()
able("introspect", "every branch of its tree, all tabs, dashboard")

# ---- the query tool ----


class Tool:
    """A query tool, or with `path` one that shows the rows of a relation."""

    def __init__(self, kind=None, path=None, rows="3", **given):
        self.id = random.randint(1, 9999999)
        opened = f"viewdata/{self.id}/{rows}/{kind}/{place}/{path.rsplit('/', 1)[1]}" if path else f"sqleditor/{self.id}/{place}"
        call("POST", f"/sqleditor/initialize/{opened}", credentials | given)
        settled()

    def ask(self, method, what, body=None, more=""):
        return data(method, f"/sqleditor/{what}/{self.id}{more}", body)

    def result(self):
        for _ in range(600):
            polled = self.ask("GET", "poll")
            if not isinstance(polled, dict) or polled.get("status") != "Busy":
                return polled
            time.sleep(0.05)
        raise SystemExit(f"{asking}: without an end")

    def start(self, sql, plan=None):
        self.ask("POST", "query_tool/start", {"sql": sql, "explain_plan": plan})

    def run(self, sql, plan=None):
        self.start(sql, plan)
        got = self.result()
        settled()
        return got["result"]

    def fails(self, sql):
        self.start(sql)
        return self.failed()

    def failed(self):
        self.result()
        said = "\n".join(wrong)
        wrong.clear()
        return said

    def rows(self):
        """Those of the relation that it shows."""
        self.ask("GET", "view_data/start")
        got = self.result()["result"]
        settled()
        return got


tool = Tool()
assert tool.run("SELECT path, n, ts FROM events WHERE n < 10 ORDER BY n") == [["/a", "1", "2026-01-01 00:00:00+00"], ["/b", "2", "2026-01-01 00:00:01+00"], ["/b", "3", "2026-01-01 00:00:02+00"]]
assert tool.run("-- two statements\nSELECT 1;\n\nSELECT 'x;y' AS z;") == [["x;y"]]
assert tool.run("SELECT relname FROM pg_class WHERE relname = 'events'") == [["events"]]
assert "nowhere" in tool.fails("SELECT * FROM nowhere")
assert "42601" in tool.fails("SELEKT 1")
assert "INSERT" in tool.run("INSERT INTO events VALUES ('2026-01-01 00:00:03+00', '/b', 4)")
able("parameters", "query tool")

# Explained as it draws plans.
quiet = dict.fromkeys(("analyze", "verbose", "costs", "timing", "buffers", "summary", "settings", "wal"), False) | {"format": "json"}
for sql in ("SELECT path, count(*) FROM events GROUP BY path ORDER BY 2", "SELECT * FROM per_path", "SELECT relname FROM pg_class"):
    for how in ({}, {"analyze": True, "timing": True, "costs": True, "buffers": True}):
        plan = tool.run(sql, quiet | how)[0][0]
        plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        assert plan["Node Type"] and ("Actual Rows" in plan) == bool(how), plan
assert tool.run("EXPLAIN (ANALYZE, COSTS off) SELECT * FROM events")

# Pages of a result, its download, completion.
assert tool.run("SELECT n FROM generate_series(1, 5000) AS g(n)")[-1] == [1000]
assert tool.ask("GET", "fetch_window", more="/4001/5000")["result"][-1] == [5000]
assert tool.run("SELECT path, n FROM events WHERE n < 3 ORDER BY n")
file = tool.ask("POST", "query_tool/download", {"filename": "x.csv", "query_commited": False})
assert file.split() == ['"path","n"', '"/a",1', '"/b",2'], file
for text, completed in (("SELECT * FROM ", "events"), ("SELECT * FROM per", "per_path")):
    assert any(completed in name for name in tool.ask("POST", "autocomplete", [text, text])["result"]), (text, completed)

# Transactions of its own, and a cursor of the server.
tool.ask("POST", "auto_commit", False)
for sql in ("SELECT 1", "SELECT count(*) FROM events", "COMMIT;"):
    tool.run(sql)
tool.ask("POST", "auto_commit", True)
tool.ask("POST", "server_cursor", True)
assert tool.run("SELECT n FROM generate_series(1, 5000) AS g(n)")[-1] == [1000]
tool.run("COMMIT;")
tool.ask("POST", "server_cursor", False)

# Canceled there, and from the list of sessions.
for cancel in ("tool", "dashboard"):
    tool.start(ENDLESS)
    runs = []
    while not runs:
        runs = [one["pid"] for one in dashboard(f"activity/{sid}/{did}")[0]["activity"] if one["state"] == "active" and one["query"] == ENDLESS]
    if cancel == "tool":
        tool.ask("POST", "cancel", {})
    else:
        call("DELETE", f"/dashboard/cancel_query/{sid}/{did}/{runs[0]}")
    said = tool.failed()
    assert "57014" in said, (cancel, said)
able("cancel", "from the query tool and the dashboard")

# ---- rows of relations ----

call("POST", f"/sqleditor/filter/validate/{sid}/{did}/{found['table']['events'].rsplit('/', 1)[1]}", {"filter_sql": "path = '/b'"})
for kind, name, count in (("table", "events", 4), ("view", "plain", 3), ("mview", "per_path", 2)):
    path = found[kind][name]
    for rows in ("1", "2", "3"):
        assert len(Tool(kind, path, rows).rows()) == count, (name, rows)
    assert len(Tool(kind, path, server_cursor=True).rows()) == count, name
    shown = Tool(kind, path)
    shown.rows()
    shown.ask("POST", "filter/inclusive", {"path": "/b"})
    assert len(shown.rows()) == (1 if name == "per_path" else 3), name
    shown.ask("POST", "filter/remove", {})
    shown.ask("GET", "filter_dialog")
    shown.ask("PUT", "filter_dialog", {"sql": "path <> '/a'", "data_sorting": [{"name": "path", "order": "desc"}]})
    assert "/b" in shown.rows()[0], name
    shown.ask("POST", "limit", 1)
    assert len(shown.rows()) == 1, name
    # The script of its menu.
    tool.run(call("GET", f"/browser/{kind}/select_sql/{path}"))
settled()
print("pgAdmin", importlib.metadata.version("pgadmin4"), "ok")
