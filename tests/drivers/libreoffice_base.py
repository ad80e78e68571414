"""LibreOffice Base through its own PostgreSQL driver (SDBC): the metadata that its window of tables asks for, prepared
statements, rows that it scrolls through.

Run by `tests/drivers/heavy`, with the system's Python, which has UNO."""
import os
import subprocess
import tempfile
import time

import uno
from com.sun.star.beans import PropertyValue
from com.sun.star.sdbc import SQLException

from report import able, authority, database, fails, host, password, port, user

home = tempfile.mkdtemp()
pipe = f"logweir{os.getpid()}"
office = subprocess.Popen(["soffice", "--headless", "--norestore", "--nologo", f"-env:UserInstallation=file://{home}", f"--accept=pipe,name={pipe};urp;"])
try:
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
    for attempt in range(120):
        try:
            context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
            break
        except Exception:
            time.sleep(0.5)
    manager = context.ServiceManager.createInstanceWithContext("com.sun.star.sdbc.DriverManager", context)
    given = [PropertyValue("user", 0, user, 0), PropertyValue("password", 0, password or "x", 0)]
    tls = f" sslmode=verify-full sslrootcert={authority}" if authority else " sslmode=disable"
    c = manager.getConnectionWithInfo(f"sdbc:postgresql:dbname={database} host={host} port={port}{tls}", given)
    able("connect", "password, TLS" if authority else "yes")
    about = c.getMetaData()
    assert about.getDatabaseProductVersion().startswith("15"), about.getDatabaseProductVersion()

    def every(rows, *columns):
        out = []
        while rows.next():
            out.append(tuple(rows.getString(column) for column in columns))
        return out

    kinds = dict(every(about.getTables(None, "public", "%", ("TABLE", "VIEW")), 3, 4))
    assert kinds.get("events") == "TABLE" and kinds.get("plain") == "VIEW", kinds
    columns = every(about.getColumns(None, "public", "events", "%"), 4, 6)
    assert columns == [("ts", "timestamptz"), ("path", "text"), ("n", "int8")], columns
    assert "public" in [name for name, in every(about.getSchemas(), 1)]
    assert every(about.getPrimaryKeys(None, "public", "events"), 4) == []
    every(about.getTypeInfo(), 1)
    every(about.getIndexInfo(None, "public", "events", False, False), 9)
    every(about.getTablePrivileges(None, "public", "events"), 6)
    # Its tree of objects (SDBCX), as the window shows it.
    driver = context.ServiceManager.createInstanceWithContext("org.openoffice.comp.connectivity.pq.Driver.noext", context)
    objects = driver.getDataDefinitionByConnection(c)
    tables = objects.getTables().getElementNames()
    assert "public.events" in tables, tables
    assert list(objects.getTables().getByName("public.events").getColumns().getElementNames()) == ["ts", "path", "n"]
    assert "public.plain" in objects.getViews().getElementNames()
    assert objects.getUsers().getElementNames() is not None
    able("introspect", "tables, views, columns, keys, types, users")
    asked = c.prepareStatement("SELECT total FROM per_path WHERE path = ?")
    asked.setString(1, "/b")
    rows = asked.executeQuery()
    assert rows.next() and rows.getLong(1) == 5
    insert = c.prepareStatement("INSERT INTO events (ts, path, n) VALUES (?, ?, ?)")
    insert.setString(1, "2026-01-01 00:00:00+00")
    insert.setString(2, "base")
    insert.setLong(3, 500)
    assert insert.executeUpdate() == 1
    rows = c.createStatement().executeQuery("SELECT path, n FROM events WHERE n < 10 ORDER BY n")
    seen = []
    while rows.next():
        seen.append((rows.getString(1), rows.getLong(2)))
    assert seen == [("/a", 1), ("/b", 2), ("/b", 3)], seen
    fails(SQLException, lambda: c.createStatement().executeQuery("SELECT * FROM nowhere"), lambda err: "nowhere" in err.Message)
    able("parameters")
    c.close()
finally:
    office.terminate()
    office.wait(30)
version = subprocess.run(["soffice", "--version"], capture_output=True, text=True).stdout.split()[1]
print("LibreOffice Base", version, "ok")
