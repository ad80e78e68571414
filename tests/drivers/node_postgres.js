// node-postgres: the pool, parameters, named statements, errors, notifications, cancel.
const assert = require('assert');
const { Client, Pool } = require('pg');
const report = require('./report.js');
const { able, connected } = report;
const where = { ...report.where, ssl: report.tls };
(async () => {
  const c = new Client({ ...where, application_name: 'node' });
  await c.connect();
  able('connect', connected);
  const at = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
  const { rows } = await c.query(
    "SELECT $1::int AS a, $2::text AS b, $3::timestamptz AS c, $4::float8 AS d, $5::bool AS e, $6::numeric(10,2) AS f, $7::int[] AS g, NULL::text AS h, 9007199254740993::bigint AS i",
    [42, 'häuser', at, 0.5, true, '12.50', [1, 2]]);
  assert.deepStrictEqual(rows, [{ a: 42, b: 'häuser', c: at, d: 0.5, e: true, f: '12.50', g: [1, 2], h: null, i: '9007199254740993' }]);
  for (const path of ['/a', '/b']) {
    const named = await c.query({ name: 'total', text: 'SELECT total FROM per_path WHERE path = $1', values: [path] });
    assert.deepStrictEqual(named.rows, [{ total: path === '/a' ? '1' : '5' }]);
  }
  const listed = await c.query({ text: 'SELECT path, n FROM events WHERE n < 10 ORDER BY n', rowMode: 'array' });
  assert.deepStrictEqual(listed.rows, [['/a', '1'], ['/b', '2'], ['/b', '3']]);
  assert.deepStrictEqual(listed.fields.map(f => [f.name, f.dataTypeID]), [['path', 25], ['n', 20]]);
  const insert = await c.query('INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)', [at, 'node', 500]);
  assert.strictEqual(insert.rowCount, 1);
  // Its companions for large results and for COPY.
  const Cursor = require('pg-cursor');
  const cursor = c.query(new Cursor('SELECT i FROM generate_series(1, 95) AS s(i)'));
  assert.strictEqual((await cursor.read(10)).length, 10);
  await cursor.close();
  const { from, to } = require('pg-copy-streams');
  const { pipeline } = require('stream/promises');
  await pipeline(require('stream').Readable.from(['2026-01-01 00:00:00+00\tcopied\t700\n']), c.query(from('COPY events (ts, path, n) FROM STDIN')));
  let out = '';
  for await (const chunk of c.query(to('COPY (SELECT path, n FROM events WHERE n < 10 OR n = 700 ORDER BY n) TO STDOUT (FORMAT csv)'))) out += chunk;
  assert.strictEqual(out, '/a,1\n/b,2\n/b,3\ncopied,700\n');
  able('COPY', 'text, csv (`pg-copy-streams`)');
  await assert.rejects(c.query('SELECT * FROM nowhere'), err => err.code === '42P01');
  await c.query('BEGIN');
  await assert.rejects(c.query('SELECT 1 / 0'), err => err.code === '22012');
  await assert.rejects(c.query('SELECT 1'), err => err.code === '25P02');
  await c.query('ROLLBACK');
  able('parameters', 'yes, named, pools, cursors');
  const heard = new Promise(resolve => c.on('notification', resolve));
  await c.query('LISTEN jobs');
  const pool = new Pool({ ...where, max: 4 });
  const all = await Promise.all([...Array(20).keys()].map(i => pool.query('SELECT $1::int AS i', [i])));
  assert.deepStrictEqual(all.map(r => r.rows[0].i), [...Array(20).keys()]);
  await pool.query("SELECT pg_notify('jobs', 'done')");
  const said = await heard;
  assert.deepStrictEqual([said.channel, said.payload], ['jobs', 'done']);
  able('LISTEN');
  const endless = c.query('SELECT count(*) FROM generate_series(1, 100000000000)');
  const seen = assert.rejects(endless, err => err.code === '57014');
  for (let tries = 0; tries < 600; tries++) {
    const stopped = await pool.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'node' AND state = 'active'");
    if (stopped.rowCount > 0) break;
  }
  await seen;
  able('cancel', 'by `pg_cancel_backend`');
  await pool.end();
  await c.end();
  console.log('node-postgres', report.version('pg'), 'ok');
})().catch(err => { console.error(err); process.exit(1); });
