"""Apache Superset, as a person uses it: tests and saves a connection, browses schemas and tables, previews one, runs SQL in
SQL Lab, makes datasets of a stream and a view, and draws charts with its time grains. By its REST API, in one process.

Run by `tests/drivers/heavy`, with Superset's own Python."""
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import tempfile

# Its own data, as `superset init` left them.
data = tempfile.mkdtemp() + "/superset.db"
shutil.copy(pathlib.Path(sys.executable).parent.parent / "base.db", data)
os.environ |= {"LOGWEIR_SUPERSET_DB": data, "SUPERSET_CONFIG_PATH": str(pathlib.Path(__file__).with_name("superset_config.py"))}
from superset.app import create_app

from report import able, authority, database, host, password, port, user

app = create_app()
app.config["WTF_CSRF_ENABLED"] = False
client = app.test_client()


def call(method, path, expected=200, **given):
    answer = client.open(f"/api/v1/{path}", method=method, headers=token, **given)
    assert answer.status_code == expected, (path, answer.status_code, answer.get_data(as_text=True)[:2000])
    return answer.get_json()


token = {}
token = {"Authorization": "Bearer " + call("POST", "security/login", json={"username": "admin", "password": "admin", "provider": "db", "refresh": True})["access_token"]}
tls = f"?sslmode=verify-full&sslrootcert={authority}" if authority else ""
uri = f"postgresql+psycopg2://{user}:{password or 'x'}@{host}:{port}/{database}{tls}"
connection = {"database_name": f"logs at {port}", "sqlalchemy_uri": uri, "expose_in_sqllab": True, "extra": json.dumps({"allows_virtual_table_explore": True})}
call("POST", "database/test_connection/", json={name: connection[name] for name in ("database_name", "sqlalchemy_uri", "extra")})
db = call("POST", "database/", 201, json=connection)["id"]
able("connect", "password, TLS" if authority else "yes")

assert "public" in call("GET", f"database/{db}/schemas/?q=(force:!t)")["result"]
kinds = {table["value"]: table["type"] for table in call("GET", f"database/{db}/tables/?q=(force:!t,schema_name:public)")["result"]}
assert kinds["events"] == "table" and kinds["plain"] == "view" and "per_path" in kinds, kinds
columns = {c["name"]: c["type"] for c in call("GET", f"database/{db}/table_metadata/?name=events&schema=public")["columns"]}
assert list(columns) == ["ts", "path", "n"] and columns["ts"].startswith("TIMESTAMP") and columns["n"] == "BIGINT", columns
assert [c["name"] for c in call("GET", f"database/{db}/table_metadata/?name=per_path&schema=public")["columns"]] == ["path", "total"]
call("GET", f"database/{db}/table_metadata/extra/?name=events&schema=public")
call("GET", f"database/{db}/function_names/")
able("introspect", "schemas, tables, views, columns, functions")


def lab(sql, expected=200):
    given = {"database_id": db, "schema": "public", "sql": sql, "runAsync": False, "select_as_cta": False, "client_id": os.urandom(5).hex(), "tab": "t", "sql_editor_id": "1", "queryLimit": 100}
    return call("POST", "sqllab/execute/", expected, json=given)


got = lab("SELECT path, n, ts FROM events WHERE n < 10 ORDER BY n")
assert [row["n"] for row in got["data"]] == [1, 2, 3] and {c["column_name"]: c["type_generic"] for c in got["columns"]} == {"path": 1, "n": 0, "ts": 2}, got
assert lab("EXPLAIN SELECT * FROM events")["data"]
error = client.post("/api/v1/sqllab/execute/", headers=token, json={"database_id": db, "schema": "public", "sql": "SELECT * FROM nowhere", "client_id": "err", "tab": "t", "sql_editor_id": "1", "runAsync": False})
assert "nowhere" in error.get_data(as_text=True), error.get_data(as_text=True)[:500]

for table, time, value in (("events", "ts", "n"), ("per_path", None, "total")):
    made = call("POST", "dataset/", 201, json={"database": db, "schema": "public", "table_name": table})["id"]
    about = call("GET", f"dataset/{made}")["result"]
    assert {c["column_name"] for c in about["columns"] if c["is_dttm"]} == ({time} if time else set()), about["columns"]
    metric = {"expressionType": "SIMPLE", "column": {"column_name": value}, "aggregate": "SUM", "label": "total"}
    grains = ["PT1S", "PT5S", "PT30S", "PT1M", "PT5M", "PT10M", "PT15M", "PT30M", "PT1H", "P1D", "P1W", "P1M", "P3M", "P1Y"] if time else [None]
    for grain in grains:
        query = {"columns": ["path"], "metrics": [metric], "filters": [{"col": "path", "op": "IN", "val": ["/a", "/b"]}], "orderby": [["total", False]], "row_limit": 100, "time_range": "No filter", "extras": {}}
        if time:
            query["columns"] = [{"columnType": "BASE_AXIS", "sqlExpression": time, "label": time, "expressionType": "SQL", "timeGrain": grain}, "path"]
            query["extras"] = {"time_grain_sqla": grain}
            query["granularity"] = time
            query["time_range"] = "2025-12-31 : 2026-01-02"
        result = call("POST", "chart/data", json={"datasource": {"id": made, "type": "table"}, "queries": [query], "result_format": "json", "result_type": "full", "force": True})["result"][0]
        totals = {}
        for row in result["data"]:
            totals[row["path"]] = totals.get(row["path"], 0) + row["total"]
        assert totals == {"/a": 1, "/b": 5}, (grain, result["data"], result.get("query"))
    samples = call("POST", "chart/data", json={"datasource": {"id": made, "type": "table"}, "queries": [{"columns": [], "metrics": [], "row_limit": 10}], "result_format": "json", "result_type": "samples", "force": True})
    assert samples["result"][0]["data"], samples
    call("GET", f"datasource/table/{made}/column/path/values/")
able("parameters", "SQL Lab, datasets, charts with each time grain")
print("Superset", importlib.metadata.version("apache-superset"), "ok")
