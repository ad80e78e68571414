"""What libpq 18 can say at the start of a connection, and what a connection promises of its settings: versions of the
protocol, TLS at once, options, encodings, replication. Only for this server: PostgreSQL 15 knows less."""
import os
import socket
import struct
import threading

import psycopg
from psycopg import errors, pq

from report import ENDLESS, able, authority, database, fails, host, password, port, user

where = f"host={host} port={port} user={user} dbname={database}"


def connect(more="", **others):
    return psycopg.connect(f"{where} {more}", autocommit=True, **others)


assert pq.version() >= 180000, pq.version()
# Protocol 3.2: longer keys to cancel by.
with connect("min_protocol_version=3.2 max_protocol_version=latest") as c:
    assert c.pgconn.full_protocol_version == 30002, c.pgconn.full_protocol_version
    threading.Timer(0.3, c.cancel_safe).start()
    fails(errors.QueryCanceled, lambda: c.execute(ENDLESS))
with connect("max_protocol_version=3.0") as c:
    assert c.pgconn.full_protocol_version == 30000
    threading.Timer(0.3, c.cancel).start()
    fails(errors.QueryCanceled, lambda: c.execute(ENDLESS))
if authority:
    # TLS from the first byte.
    with connect("sslnegotiation=direct sslmode=verify-full") as c:
        assert c.pgconn.ssl_in_use and c.execute("SELECT 1").fetchone() == (1,)
    with connect("channel_binding=require") as c:
        assert c.pgconn.ssl_in_use
    fails(psycopg.OperationalError, lambda: connect("sslrootcert=system"))
fails(psycopg.OperationalError, lambda: connect("gssencmode=require"))
able("connect", "password, TLS (on request or at once), protocol 3.0 and 3.2" if authority else "yes")

# Settings given at the start.
with connect("options='-c statement_timeout=200 -csearch_path=public --application-name=a\\\\ b'") as c:
    assert c.execute("SHOW statement_timeout").fetchone()[0].rstrip("ms") == "200"
    assert c.info.parameter_status("application_name") == "a b"
    fails(errors.QueryCanceled, lambda: c.execute("SELECT pg_sleep(60)"))
fails(psycopg.OperationalError, lambda: connect("options='-c statement_timeout=soon'"), lambda err: "statement_timeout" in str(err) or "duration" in str(err))
fails(psycopg.OperationalError, lambda: connect("client_encoding=LATIN1"), lambda err: "UTF8" in str(err))
fails(psycopg.OperationalError, lambda: connect("replication=database"), lambda err: "replication connections are not supported" in str(err))
with connect("client_encoding=SQL_ASCII") as c:
    assert c.execute("SELECT 'häuser'".encode()).fetchone()[0] == "häuser".encode()
with connect("options='-c nonsense=1' target_session_attrs=read-write") as c:
    # What a client must be told, and what is written as it says.
    told = {name: c.info.parameter_status(name) for name in (
        "server_version", "server_encoding", "client_encoding", "application_name", "default_transaction_read_only", "in_hot_standby",
        "is_superuser", "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings")}
    assert None not in told.values(), told
    assert told["DateStyle"] == "ISO, MDY" and told["session_authorization"] == user, told
    for wrong in ("DateStyle = 'German'", "IntervalStyle = 'iso_8601'", "bytea_output = 'escape'", "standard_conforming_strings = off", "client_encoding = 'WIN1252'"):
        fails(errors.FeatureNotSupported, lambda: c.execute(f"SET {wrong}"))
    for fine in ("DateStyle = 'ISO, DMY'", "IntervalStyle = 'postgres'", "extra_float_digits = 3", "TimeZone = 'Europe/Berlin'", "search_path = public", "lock_timeout = 0"):
        c.execute(f"SET {fine}")
    assert c.info.parameter_status("TimeZone") == "Europe/Berlin"
    c.execute("BEGIN; SET LOCAL application_name = 'inside'")
    assert c.info.parameter_status("application_name") == "inside"
    c.execute("COMMIT")
    assert c.info.parameter_status("application_name") == ""

    # Statements without a result are described as such, an empty one is an empty one.
    for text, fields in (("SET work_mem = '1MB'", 0), ("SELECT 1 AS a, 2 AS b", 2), ("INSERT INTO events (ts, path, n) VALUES (now(), 'x', 0)", 0), ("BEGIN", 0), ("LISTEN x", 0)):
        assert c.pgconn.prepare(b"s", text.encode()).status == pq.ExecStatus.COMMAND_OK
        assert c.pgconn.describe_prepared(b"s").nfields == fields, text
        c.execute("DEALLOCATE s")
    assert c.pgconn.exec_(b"").status == pq.ExecStatus.EMPTY_QUERY
    assert c.pgconn.exec_(b" ; -- nothing\n ;").status == pq.ExecStatus.EMPTY_QUERY
    assert c.pgconn.exec_params(b"", []).status == pq.ExecStatus.EMPTY_QUERY

    # Many statements in one text: each is answered, the first error ends it.
    answers = c.execute("SELECT 1 AS a; SELECT 2 AS a; SET work_mem = '2MB'")
    seen = [answers.fetchall()]
    while answers.nextset():
        seen.append(answers.fetchall() if answers.description else answers.statusmessage)
    assert seen == [[(1,)], [(2,)], "SET"], seen
    fails(errors.DivisionByZero, lambda: c.execute("SELECT 1; SELECT 1 / 0; CREATE TABLE never (a bigint)"))
    fails(errors.UndefinedTable, lambda: c.execute("SELECT * FROM never"))

# Extensions of the protocol that are not known, and the newest version: the server tells what it can.
if not authority:
    def begin(version, parameters):
        body = struct.pack("!I", version) + b"".join(text.encode() + b"\0" for pair in parameters.items() for text in pair) + b"\0"
        raw = socket.create_connection((host, port))
        raw.sendall(struct.pack("!I", len(body) + 4) + body)
        answer = raw.recv(4096)
        raw.close()
        return answer

    answer = begin(3 << 16, {"user": user, "_pq_.more": "1"})
    assert answer.startswith(b"v" + struct.pack("!III", 4 + 8 + 10, 3 << 16, 1) + b"_pq_.more\0"), answer
    assert begin((3 << 16) + 9999, {"user": user}).startswith(b"v" + struct.pack("!III", 12, (3 << 16) + 2, 0))
    assert not begin(3 << 16, {"user": user}).startswith(b"v")
    assert b"08P01" in begin(2 << 16, {"user": user}) or begin(2 << 16, {"user": user}).startswith(b"E")

# Transactions: as PostgreSQL's in form.
with connect() as c:
    def state(sql):
        try:
            return c.execute(sql).statusmessage
        except psycopg.Error as err:
            return err.sqlstate

    for sql, expected in [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", "BEGIN"), ("SHOW transaction_read_only", "SHOW"),
        ("INSERT INTO events (ts, path, n) VALUES (now(), 'no', 0)", "25006"), ("SELECT 1", "25P02"), ("COMMIT", "ROLLBACK"),
        ("BEGIN READ ONLY", "BEGIN"), ("CREATE TABLE no (a bigint)", "25006"), ("ROLLBACK", "ROLLBACK"),
        ("BEGIN", "BEGIN"), ("SET TRANSACTION READ ONLY", "SET"), ("DROP TABLE events", "25006"), ("ROLLBACK AND CHAIN", "ROLLBACK"), ("DROP TABLE events", "25006"), ("ROLLBACK", "ROLLBACK"),
        ("SAVEPOINT a", "25P01"), ("BEGIN", "BEGIN"), ("SAVEPOINT a", "SAVEPOINT"), ("SELECT 1 / 0", "22012"), ("ROLLBACK TO a", "ROLLBACK"),
        ("RELEASE b", "3B001"), ("ROLLBACK TO SAVEPOINT a", "ROLLBACK"), ("RELEASE a", "RELEASE"), ("ROLLBACK TO a", "3B001"), ("ROLLBACK", "ROLLBACK"),
        ("COMMIT AND CHAIN", "25P01"), ("PREPARE TRANSACTION 'x'", "0A000"), ("COMMIT PREPARED 'x'", "0A000"),
        ("DECLARE c CURSOR FOR SELECT 1", "55000"), ("BEGIN", "BEGIN"), ("DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 10) AS s(i)", "DECLARE CURSOR"),
        ("MOVE 3 IN c", "MOVE 3"), ("FETCH 2 FROM c", "FETCH 2"), ("MOVE ALL FROM c", "MOVE 5"), ("FETCH 1 FROM c", "FETCH 0"), ("FETCH BACKWARD 1 FROM c", "55000"), ("ROLLBACK", "ROLLBACK"),
        ("DECLARE h CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 10) AS s(i)", "DECLARE CURSOR"), ("FETCH ALL FROM h", "FETCH 10"), ("CLOSE h", "CLOSE CURSOR"), ("CLOSE h", "34000"),
        ("PREPARE p (text) AS SELECT total FROM per_path WHERE path = $1", "PREPARE"), ("PREPARE p AS SELECT 1", "42P05"), ("EXECUTE p('/b')", "SELECT 1"), ("EXECUTE p", "42601"), ("EXECUTE q", "26000"),
        ("PREPARE i AS INSERT INTO events (ts, path, n) VALUES (now(), $1, $2)", "PREPARE"), ("EXECUTE i('executed', 4 + 5)", "INSERT 0 1"), ("DEALLOCATE ALL", "DEALLOCATE ALL"), ("EXECUTE p('/b')", "26000"),
        ("SET default_transaction_read_only = on", "SET"), ("INSERT INTO events (ts, path, n) VALUES (now(), 'no', 0)", "25006"), ("BEGIN READ WRITE", "BEGIN"), ("INSERT INTO events (ts, path, n) VALUES (now(), 'yes', 0)", "INSERT 0 1"), ("COMMIT", "COMMIT"),
        ("DISCARD ALL", "DISCARD ALL"), ("SHOW default_transaction_read_only", "SHOW"), ("SELECT pg_sleep(0.01)", "SELECT 1"), ("SELECT pg_sleep_for('10 ms')", "SELECT 1"),
    ]:
        got = state(sql)
        assert got == expected, (sql, got, expected)
    assert c.execute("SELECT count(*) FROM events WHERE path = 'no'").fetchone() == (0,)
    assert c.execute("SELECT n FROM events WHERE path = 'executed'").fetchone() == (9,)

# Many rows by portions.
with connect() as c, c.transaction(), c.cursor(name="many") as cur:
    cur.itersize = 20000
    cur.execute("SELECT i FROM generate_series(1, 1000000) AS s(i)")
    assert sum(row[0] for row in cur) == 500000500000
able("parameters", "yes, settings at the start, transactions, cursors")
print("libpq", "18", "ok")
