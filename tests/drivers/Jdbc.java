// PostgreSQL's JDBC driver: metadata as BI tools read it, parameters, fetch size, batches, COPY, cancel, notifications.
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import org.postgresql.PGConnection;

public class Jdbc {
    static void same(Object got, Object expected) {
        if (!Objects.equals(got, expected)) throw new AssertionError(got + " instead of " + expected);
    }

    static List<String> names(ResultSet rows, String column) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows.next()) all.add(rows.getString(column));
        return all;
    }

    public static void main(String[] args) throws Exception {
        String authority = System.getenv("PGSSLROOTCERT"), password = System.getenv("PGPASSWORD");
        String url = "jdbc:postgresql://" + args[0] + ":" + args[1] + "/logweir?user=tester" + (password == null ? "" : "&password=" + password)
            + (authority == null ? "&sslmode=disable" : "&sslmode=verify-full&sslrootcert=" + authority);
        // Each of its ways to send a query: in parameters or in the text, prepared at once, later or never.
        for (String mode : List.of("simple", "extended", "extendedForPrepared", "extendedCacheEverything")) {
            try (Connection c = DriverManager.getConnection(url + "&preferQueryMode=" + mode + "&prepareThreshold=1&ApplicationName=jdbc&readOnly=false");
                 PreparedStatement s = c.prepareStatement("SELECT total, ?::text FROM per_path WHERE path = ?")) {
                for (String path : List.of("/a", "/b", "/b")) {
                    s.setString(1, "it's");
                    s.setString(2, path);
                    ResultSet rows = s.executeQuery();
                    rows.next();
                    same(rows.getLong(1), path.equals("/a") ? 1L : 5L);
                    same(rows.getString(2), "it's");
                }
                c.setReadOnly(true);
                c.setAutoCommit(false);
                c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                same(c.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
                try (Statement insert = c.createStatement()) {
                    insert.executeUpdate("INSERT INTO events (ts, path, n) VALUES (now(), 'no', 0)");
                    throw new AssertionError("was not refused");
                } catch (SQLException err) {
                    same(err.getSQLState(), "25006");
                }
                c.rollback();
                Savepoint here = c.setSavepoint("here");
                c.rollback(here);
                c.releaseSavepoint(here);
                c.commit();
            }
        }
        System.out.println("connect: " + (authority == null ? "yes" : "password, TLS"));
        try (Connection c = DriverManager.getConnection(url)) {
            DatabaseMetaData about = c.getMetaData();
            same(about.getDatabaseProductName(), "PostgreSQL");
            if (about.getDatabaseMajorVersion() < 15) throw new AssertionError(about.getDatabaseProductVersion());
            if (!names(about.getSchemas(), "TABLE_SCHEM").contains("public")) throw new AssertionError("no schema public");
            same(names(about.getCatalogs(), "TABLE_CAT").contains("logweir"), true);
            Map<String, String> kinds = new TreeMap<>();
            try (ResultSet tables = about.getTables(null, "public", "%", new String[] {"TABLE", "VIEW", "MATERIALIZED VIEW"})) {
                while (tables.next()) kinds.put(tables.getString("TABLE_NAME"), tables.getString("TABLE_TYPE"));
            }
            same(kinds.get("events"), "TABLE");
            same(kinds.get("plain"), "VIEW");
            same(kinds.get("per_path"), "MATERIALIZED VIEW");
            List<String> columns = new ArrayList<>();
            try (ResultSet all = about.getColumns(null, "public", "events", "%")) {
                while (all.next()) columns.add(all.getString("COLUMN_NAME") + " " + all.getString("TYPE_NAME") + " " + all.getInt("DATA_TYPE") + " " + all.getInt("ORDINAL_POSITION"));
            }
            same(columns, List.of("ts timestamptz 93 1", "path text 12 2", "n int8 -5 3"));
            same(names(about.getPrimaryKeys(null, "public", "events"), "COLUMN_NAME"), List.of());
            same(names(about.getIndexInfo(null, "public", "events", false, false), "INDEX_NAME"), List.of());
            same(names(about.getImportedKeys(null, "public", "events"), "FKCOLUMN_NAME"), List.of());
            names(about.getTypeInfo(), "TYPE_NAME");
            names(about.getFunctions(null, "public", "%"), "FUNCTION_NAME");

            System.out.println("introspect: `DatabaseMetaData`");
            // More than five executions: then the driver prepares on the server, and reads in binary.
            try (PreparedStatement total = c.prepareStatement("SELECT total FROM per_path WHERE path = ?")) {
                for (int i = 0; i < 12; i++) {
                    total.setString(1, i % 2 == 0 ? "/a" : "/b");
                    ResultSet rows = total.executeQuery();
                    rows.next();
                    same(rows.getLong(1), i % 2 == 0 ? 1L : 5L);
                }
            }
            try (PreparedStatement values = c.prepareStatement("SELECT ?::int, ?::text, ?::timestamptz, ?::float8, ?::bool, ?::numeric(10,2), NULL::text")) {
                OffsetDateTime at = OffsetDateTime.parse("2026-01-02T03:04:05Z");
                for (int i = 0; i < 8; i++) {
                    values.setInt(1, 42);
                    values.setString(2, "häuser");
                    values.setObject(3, at);
                    values.setDouble(4, 0.5);
                    values.setBoolean(5, true);
                    values.setBigDecimal(6, new java.math.BigDecimal("12.50"));
                    ResultSet row = values.executeQuery();
                    row.next();
                    same(row.getInt(1), 42);
                    same(row.getString(2), "häuser");
                    same(row.getObject(3, OffsetDateTime.class).toInstant(), at.toInstant());
                    same(row.getDouble(4), 0.5);
                    same(row.getBoolean(5), true);
                    same(row.getBigDecimal(6), new java.math.BigDecimal("12.50"));
                    same(row.getString(7), null);
                }
            }
            c.setAutoCommit(false);
            try (Statement portions = c.createStatement()) {
                portions.setFetchSize(10);
                ResultSet rows = portions.executeQuery("SELECT i FROM generate_series(1, 95) AS s(i)");
                int count = 0;
                while (rows.next()) same(rows.getInt(1), ++count);
                same(count, 95);
            }
            c.commit();
            c.setAutoCommit(true);
            try (PreparedStatement insert = c.prepareStatement("INSERT INTO events (ts, path, n) VALUES (?, ?, ?)")) {
                for (int i = 0; i < 5; i++) {
                    insert.setObject(1, OffsetDateTime.parse("2026-01-01T00:00:00Z"));
                    insert.setString(2, "jdbc");
                    insert.setLong(3, 600 + i);
                    insert.addBatch();
                }
                same(Arrays.toString(insert.executeBatch()), "[1, 1, 1, 1, 1]");
            }
            System.out.println("parameters: yes in each query mode, prepared, fetch size, batches");
            System.out.println("binary: yes");
            PGConnection pg = c.unwrap(PGConnection.class);
            same(pg.getCopyAPI().copyIn("COPY events (ts, path, n) FROM STDIN WITH (FORMAT csv)", new StringReader("2026-01-01 00:00:00+00,copied,700\n")), 1L);
            StringWriter out = new StringWriter();
            same(pg.getCopyAPI().copyOut("COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT", out), 3L);
            same(out.toString(), "/a\t1\n/b\t2\n/b\t3\n");
            System.out.println("COPY: text, csv");
            try (Statement s = c.createStatement()) {
                s.executeQuery("SELECT * FROM nowhere");
                throw new AssertionError("did not fail");
            } catch (SQLException err) {
                same(err.getSQLState(), "42P01");
            }
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.executeQuery("SELECT count(*) FROM generate_series(1, 100000000000)");
                throw new AssertionError("was not canceled");
            } catch (SQLException err) {
                same(err.getSQLState(), "57014");
            }
            System.out.println("cancel: by its query timeout");
            try (Statement s = c.createStatement(); Connection other = DriverManager.getConnection(url); Statement said = other.createStatement()) {
                s.execute("LISTEN jobs");
                said.execute("NOTIFY jobs, 'done'");
                org.postgresql.PGNotification[] heard = pg.getNotifications(30000);
                same(heard.length, 1);
                same(heard[0].getName() + " " + heard[0].getParameter(), "jobs done");
            }
            System.out.println("LISTEN: yes");
            same(c.isValid(5), true);
            System.out.println("pgjdbc " + about.getDriverVersion() + " ok");
        }
    }
}
