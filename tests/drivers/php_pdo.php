<?php
// PHP: PDO (prepared on the server, or put together by PDO) and the pgsql extension, whose COPY, cancel and notifications PDO lacks.
function same($got, $expected) {
    if ($got !== $expected) throw new Exception(var_export($got, true) . ' instead of ' . var_export($expected, true));
}
[, $host, $port] = $argv;
$tls = getenv('PGSSLMODE') === 'verify-full' ? 'sslmode=verify-full sslrootcert=' . getenv('PGSSLROOTCERT') : 'sslmode=disable';
$password = getenv('PGPASSWORD') ?: 'x';
$dsn = 'pgsql:host=' . $host . ';port=' . $port . ';dbname=logweir;' . str_replace(' ', ';', $tls);
foreach ([false, true] as $emulate) {
    $db = new PDO($dsn, 'tester', $password, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_EMULATE_PREPARES => $emulate]);
    $values = $db->prepare('SELECT CAST(:a AS int) AS a, CAST(:b AS text) AS b, CAST(:c AS timestamptz) AS c, CAST(:d AS float8) AS d, CAST(:e AS bool) AS e, CAST(:f AS numeric(10,2)) AS f, CAST(:g AS text) AS g');
    $values->bindValue('a', 42, PDO::PARAM_INT);
    $values->bindValue('b', "häu'ser");
    $values->bindValue('c', '2026-01-02 03:04:05.678+00');
    $values->bindValue('d', 0.5);
    $values->bindValue('e', true, PDO::PARAM_BOOL);
    $values->bindValue('f', '12.50');
    $values->bindValue('g', null, PDO::PARAM_NULL);
    $values->execute();
    same($values->fetch(PDO::FETCH_NUM), [42, "häu'ser", '2026-01-02 03:04:05.678+00', '0.5', true, '12.50', null]);
    same($values->getColumnMeta(2)['native_type'], 'timestamptz');
    $total = $db->prepare('SELECT total FROM per_path WHERE path = ?');
    foreach (['/a' => 1, '/b' => 5] as $path => $expected) {
        $total->execute([$path]);
        same($total->fetchColumn(), $expected);
    }
    $db->beginTransaction();
    $insert = $db->prepare('INSERT INTO events (ts, path, n) VALUES (?, ?, ?)');
    $insert->execute(['2026-01-01 00:00:00+00', 'pdo', 500]);
    same($insert->rowCount(), 1);
    $db->commit();
    try {
        $db->query('SELECT * FROM nowhere');
        throw new Exception('did not fail');
    } catch (PDOException $e) {
        same($e->getCode(), '42P01');
    }
}
$db->beginTransaction();
$rows = $db->prepare('SELECT i FROM generate_series(1, 35) AS s(i)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
$rows->execute();
same(count($rows->fetchAll()), 35);
$db->commit();
same($db->pgsqlCopyToArray('events', '|', '\\\\N', 'path, n')[0], "/a|1\n");
same($db->pgsqlCopyFromArray('events', ["2026-01-01 00:00:00+00\tcopied\t700\n"], "\t", '\\\\N', 'ts, path, n'), true);
echo 'connect: ', $tls === 'sslmode=disable' ? 'yes' : 'password, TLS', "\n";
echo "parameters: yes, prepared on the server or not, cursors\n";
echo "COPY: text\n";

$db->exec('LISTEN jobs');
$c = pg_connect("host=$host port=$port dbname=logweir user=tester password=$password $tls");
same(pg_fetch_row(pg_query_params($c, 'SELECT $1::int + 1, $2::text', [41, 'x'])), ['42', 'x']);
pg_query($c, "NOTIFY jobs, 'done'");
$heard = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, 30000);
same([$heard['message'], $heard['pid'], $heard['payload']], ['jobs', pg_get_pid($c), 'done']);
echo "LISTEN: yes\n";
same(array_keys(pg_meta_data($c, 'events')), ['ts', 'path', 'n']);
same(array_map(fn ($column) => $column['type'], array_values(pg_meta_data($c, 'events'))), ['timestamptz', 'text', 'int8']);
same(pg_fetch_all_columns(pg_query($c, 'SELECT path FROM events WHERE n < 10 ORDER BY n')), ['/a', '/b', '/b']);
echo "introspect: `pg_meta_data`\n";
pg_send_query($c, 'SELECT count(*) FROM generate_series(1, 100000000000)');
usleep(300000);
same(pg_cancel_query($c), true);
$version = pg_version($c);
same(explode('.', $version['server'])[0], '15');
same(pg_fetch_row(pg_query($c, 'SELECT 1')), ['1']);
echo "cancel: yes\n";
echo 'PHP PDO and pgsql ', PHP_VERSION, " ok\n";
