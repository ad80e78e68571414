"""psql: its commands about what there is, \\copy both ways, \\gdesc and \\watch, variables in queries, Ctrl-C, LISTEN."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from report import ENDLESS, able, authority, database, host, port, user

home = pathlib.Path(tempfile.mkdtemp())
command = ["psql", "-X", "-w", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-h", host, "-p", str(port), "-U", user, "-d", database]


def psql(text, *options):
    done = subprocess.run([*command, *options], input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


assert ("SSL connection" in psql("\\conninfo")) == bool(authority)
able("connect", "password, TLS" if authority else "yes")
for ask, answer in {
    "\\d events": "timestamp with time zone", "\\d+ plain": "path", "\\d per_path": "total", "\\dt": "events", "\\dv": "plain", "\\dm": "per_path",
    "\\dn": "public", "\\dn+": "public", "\\du": user, "\\l": database, "\\df lower": "lower", "\\dp events": "events", "\\dT": "", "\\di": "", "\\ds": "", "\\dE": "",
    "\\dx": "", "\\des": "", "\\dew": "", "\\ddp": "", "\\dl": "", "\\db": "", "\\dc": "", "\\dC": "", "\\dD": "", "\\dF": "", "\\dRp": "", "\\dRs": "", "\\dy": "", "\\dconfig search_path": "public", "\\encoding": "UTF8", "\\z events": "events", "\\sf lower": None,
}.items():
    if answer is not None:
        assert answer in psql(ask + "\n"), ask
assert "events" in psql("\\dt+ public.*\n") and "timestamp with time zone" in psql("SELECT ts, n FROM events \\gdesc\n")
able("introspect", "`\\d`, `\\dt`, `\\dv`, `\\dm`, `\\df`, …")
plain = ["-A", "-t"]
assert psql("SELECT path, total FROM per_path WHERE path = :'wanted';\n", *plain, "-v", "wanted=/b") == "/b|5\n"
assert psql("\\set FETCH_COUNT 10\nSELECT i FROM generate_series(1, 35) AS s(i);\n", *plain).split() == [str(i) for i in range(1, 36)]
assert psql("PREPARE p (bigint) AS SELECT path FROM events WHERE n = $1;\nEXECUTE p(3);\n", *plain).split("\n")[1] == "/b"
assert psql("SELECT 1 AS one, 2 AS two \\gset\n\\echo :one :two\n", *plain) == "1 2\n"
assert psql("SELECT 'SELECT ' || n FROM events WHERE n < 10 ORDER BY n \\gexec\n", *plain).split() == ["1", "2", "3"]
assert psql("SELECT n % 2 AS odd, path, n FROM events WHERE n < 10 \\crosstabview\n").count("/b") == 1
able("parameters", "variables, PREPARE, cursors (`FETCH_COUNT`)")
out = home / "out.csv"
psql(f"\\copy (SELECT ts, path, n FROM events WHERE n < 10 ORDER BY n) TO '{out}' WITH (FORMAT csv, HEADER)\n")
assert out.read_text().splitlines()[1] == "2026-01-01 00:00:00+00,/a,1", out.read_text()
out.write_text(out.read_text().replace("/a,1", "copied,700").replace("/b,2", '"a,""b",701').replace("/b,3", ",702"))
assert "COPY 3" in psql(f"\\copy events (ts, path, n) FROM '{out}' WITH (FORMAT csv, HEADER)\n")
psql(f"\\copy (SELECT ts, path, n FROM events WHERE n = 700) TO '{home}/binary' WITH (FORMAT binary)\n\\copy events (ts, path, n) FROM '{home}/binary' WITH (FORMAT binary)\n")
assert psql("SELECT path FROM events WHERE n >= 700 ORDER BY n, path;\n", *plain) == 'copied\ncopied\na,"b\n\n'
able("COPY", "text, csv, binary (`\\copy`)")
failed = subprocess.run([*command, "-v", "VERBOSITY=verbose", "-c", "SELECT * FROM nowhere"], capture_output=True, text=True)
assert failed.returncode == 1 and "ERROR:  42P01: relation \"nowhere\" does not exist" in failed.stderr, failed.stderr
running = subprocess.Popen([*command, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
time.sleep(1)
running.send_signal(signal.SIGINT)
assert "canceling statement due to user request" in running.communicate(timeout=60)[1]
able("cancel")
assert 'Asynchronous notification "jobs" with payload "done" received' in psql("LISTEN jobs;\nNOTIFY jobs, 'done';\nSELECT 1;\n")
able("LISTEN")
version = subprocess.run(["psql", "--version"], capture_output=True, text=True).stdout.split()[2]
print("psql", version, "ok")
