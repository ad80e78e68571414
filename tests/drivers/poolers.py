"""What stands between clients and server: PgBouncer (transactions or sessions share connections), Pgpool-II and HAProxy.
Called as `poolers.py host port binary NAME`; each is started with its own configuration, and psycopg works through it."""
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

from report import ENDLESS, able, authority, database, fails, host, password, port, user

name = sys.argv[4]
home = pathlib.Path(tempfile.mkdtemp())
os.chmod(home, 0o755)
nobody = pwd.getpwnam("nobody").pw_uid
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    door = free.getsockname()[1]


def write(file, text):
    (home / file).write_text(text)
    os.chmod(home / file, 0o644)
    return str(home / file)


tls_of_bouncer = f"server_tls_sslmode = verify-full\nserver_tls_ca_file = {write('ca.pem', open(authority).read())}\n" if authority else ""


def bouncer(mode):
    users = write("users", f'"{user}" "{password or ""}"\n')
    config = write("bouncer.ini", f"""[databases]
{database} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {door}
unix_socket_dir =
auth_type = {"scram-sha-256" if password else "any"}
auth_file = {users}
pool_mode = {mode}
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
{tls_of_bouncer}""")
    return ["pgbouncer", *(["-u", "nobody"] if os.getuid() == 0 else []), config]


def haproxy():
    config = write("haproxy.cfg", f"""defaults
  mode tcp
  timeout connect 10s
  timeout client 1m
  timeout server 1m
listen logs
  bind 127.0.0.1:{door}
  option pgsql-check user {user}
  server one {socket.gethostbyname(host)}:{port} check inter 1s
""")
    return ["haproxy", "-db", "-f", config]


def pgpool():
    write("pool_hba.conf", "host all all 127.0.0.1/32 trust\n")
    write("pool_passwd", f"{user}:TEXT{password or 'x'}\n")
    write("pcp.conf", "")
    config = write("pgpool.conf", f"""backend_clustering_mode = 'raw'
listen_addresses = '127.0.0.1'
port = {door}
socket_dir = '{home}'
pcp_listen_addresses = ''
pcp_socket_dir = '{home}'
wd_ipc_socket_dir = '{home}'
pid_file_name = '{home}/pid'
logdir = '{home}'
backend_hostname0 = '{host}'
backend_port0 = {port}
enable_pool_hba = on
pool_passwd = 'pool_passwd'
num_init_children = 8
ssl = off
""")
    os.chmod(home, 0o777)
    return ["pgpool", "-n", "-f", config, "-a", str(home / "pool_hba.conf"), "-F", str(home / "pcp.conf")]


command = {"PgBouncer, transactions": lambda: bouncer("transaction"), "PgBouncer, sessions": lambda: bouncer("session"), "HAProxy": haproxy, "Pgpool-II": pgpool}[name]()
log = open(home / "log", "w")
proxy = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/usr/lib/postgresql/15/bin"}, preexec_fn=os.setsid)
try:
    through_tls = name == "HAProxy" and authority
    where = f"host=localhost port={door} user={user} dbname={database} " + ("" if through_tls else "sslmode=disable")
    for attempt in range(60):
        try:
            c = psycopg.connect(where, autocommit=True, prepare_threshold=None)
            break
        except psycopg.OperationalError:
            if attempt == 59:
                raise
            time.sleep(0.5)
    able("connect", "password, TLS to the server" if authority and name != "Pgpool-II" else "password")
    assert c.execute("SELECT total FROM per_path WHERE path = %s", ("/b",)).fetchall() == [(5,)]
    if name in ("PgBouncer, transactions", "HAProxy"):
        # With PgBouncer these are more clients than connections to the server.
        many = [psycopg.connect(where, autocommit=True, prepare_threshold=None) for _ in range(10)]
        for i, one in enumerate(many):
            with one.transaction():
                assert one.execute("SELECT %s::int", (i,)).fetchone() == (i,)
        for one in many:
            one.close()
    able("parameters")
    with c.cursor() as cur, cur.copy("COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT") as copy:
        assert list(copy.rows()) == [("/a", "1"), ("/b", "2"), ("/b", "3")]
    with c.cursor() as cur, cur.copy("COPY events (ts, path, n) FROM STDIN") as copy:
        copy.write_row(("2026-01-01 00:00:00+00", "pooled", 100))
    able("COPY", "text")
    fails(psycopg.errors.UndefinedTable, lambda: c.execute("SELECT * FROM nowhere"))
    threading.Timer(0.3, c.cancel).start()
    fails(psycopg.errors.QueryCanceled, lambda: c.execute(ENDLESS))
    able("cancel")
    if name in ("HAProxy", "PgBouncer, sessions"):
        c.execute("LISTEN jobs")
        c.execute("NOTIFY jobs, 'done'")
        assert [note.payload for note in c.notifies(timeout=10, stop_after=1)] == ["done"]
        able("LISTEN")
    c.close()
except BaseException:
    log.flush()
    print((home / "log").read_text()[-3000:], file=sys.stderr)
    raise
finally:
    os.killpg(proxy.pid, signal.SIGTERM)
    proxy.wait(30)
program = ["pgbouncer", "--version"] if "Bouncer" in name else ["haproxy", "-v"] if name == "HAProxy" else ["pgpool", "--version"]
said = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"})
version = next(word for word in (said.stdout + said.stderr).replace("-", " ").split() if word[0].isdigit())
print(name, version, "ok")
