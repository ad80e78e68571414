"""pgcli in a terminal: it reads the whole catalog for its completion before its first prompt is of use, completes the
name of a view, describes relations by its own queries (pgspecial), and runs a query."""
import os
import sys
import tempfile
import time

import pexpect

from report import able, authority, database, host, port, user
import importlib.metadata

config = tempfile.mkdtemp()
tls = f"?sslmode=verify-full&sslrootcert={authority}" if authority else ""
program = os.path.join(os.path.dirname(sys.executable), "pgcli")
terminal = pexpect.spawn(
    program, ["--warn=off", f"--pgclirc={config}/rc", f"postgresql://{user}@{host}:{port}/{database}{tls}"],
    env=os.environ | {"TERM": "dumb", "XDG_CONFIG_HOME": config, "HOME": config, "PAGER": "cat", "PROMPT_TOOLKIT_NO_CPR": "1"},
    encoding="utf-8", timeout=60, dimensions=(60, 200))


def says(line, *expected):
    terminal.sendline(line)
    for text in expected:
        terminal.expect(text)
    terminal.expect(r"Time: ")


terminal.expect(f"{database}> ")
able("connect", "password, TLS" if authority else "yes")
says("SELECT path, total FROM per_path ORDER BY path;", r"/b\s*\|\s*5", "SELECT 2")
says("\\dt", "events", "table")
says("\\dv", "plain")
says("\\dm", "per_path")
says("\\d events", "timestamp with time zone", "path", "bigint")
says("\\dn", "public")
says("\\l", database)
says("\\du", user)
says("\\dT", "")
says("\\refresh", "Auto-completion refresh")
terminal.sendline("SELECT * FROM nowhere;")
terminal.expect('relation "nowhere" does not exist')
terminal.sendline("SELECT count(*) FROM generate_series(1, 100000000000);")
for _ in range(20):
    # Before the query runs, Ctrl-C only empties the line; afterwards there is nothing to be stopped.
    time.sleep(1)
    terminal.sendintr()
    if terminal.expect(["(?i)cancell?ed|cancell?ing", pexpect.TIMEOUT], timeout=2) == 0:
        break
else:
    raise SystemExit("was not canceled")
able("cancel")
terminal.sendline("\\q")
terminal.expect(pexpect.EOF)

# What its completion knows, read the same way.
from pgcli.completion_refresher import CompletionRefresher
from pgcli.pgexecute import PGExecute

execute = PGExecute(database, user, os.environ.get("PGPASSWORD", ""), host, port, None)
assert {("public", "events"), } <= set(execute.tables()), list(execute.tables())
assert {("public", "plain"), ("public", "per_path")} <= set(execute.views()), list(execute.views())
columns = {row[:3] for row in list(execute.table_columns()) + list(execute.view_columns())}
assert {("public", "events", "ts"), ("public", "per_path", "path")} <= columns, columns
assert "public" in execute.schemata() and database in execute.databases()
assert execute.foreignkeys() is not None and execute.functions() is not None and execute.datatypes() is not None
list(execute.foreignkeys()), list(execute.functions()), list(execute.datatypes()), list(execute.casing())
assert "events" in execute.view_definition("plain")
able("introspect", "completion, `\\d`, `\\dt`, `\\dv`, `\\dm`, `\\dn`, `\\du`, `\\l`")
print("pgcli", importlib.metadata.version("pgcli"), "ok")
