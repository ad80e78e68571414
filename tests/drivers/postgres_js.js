// postgres.js: pipelines every query, infers types from Describe, streams COPY and cursors.
const assert = require('assert');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const postgres = require('postgres');
const { where, tls, connected, able, endless, run, version } = require('./report.js');

run(async () => {
  const { user, ...others } = where;
  const sql = postgres({ ...others, username: user, ssl: tls, max: 4, connection: { application_name: 'postgres.js' } });
  const at = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
  const [row] = await sql`SELECT ${42}::int AS a, ${'häuser'}::text AS b, ${at}::timestamptz AS c, ${0.5}::float8 AS d, ${true}::bool AS e, ${'12.50'}::numeric(10,2) AS f, ${sql.array([1, 2], 1007)}::int[] AS g, ${null}::text AS h`;
  assert.deepStrictEqual({ ...row }, { a: 42, b: 'häuser', c: at, d: 0.5, e: true, f: '12.50', g: [1, 2], h: null });
  able('connect', connected);
  const totals = await Promise.all(['/a', '/b', '/a', '/b'].map(path => sql`SELECT total FROM per_path WHERE path = ${path}`));
  assert.deepStrictEqual(totals.map(t => t[0].total), ['1', '5', '1', '5']);
  const about = await sql`SELECT path, n FROM events WHERE n = ${1} AND path IN ${sql(['/a', '/b'])}`.describe();
  assert.deepStrictEqual(about.columns.map(c => [c.name, c.type]), [['path', 25], ['n', 20]]);
  const rows = ['one', 'two', 'three'].map((path, i) => ({ ts: at, path, n: 500 + i }));
  assert.strictEqual((await sql`INSERT INTO events ${sql(rows, 'ts', 'path', 'n')}`).count, 3);
  let seen = 0;
  await sql`SELECT i FROM generate_series(1, 95) AS s(i)`.cursor(10, portion => { seen += portion.length; });
  assert.strictEqual(seen, 95);
  assert.deepStrictEqual((await sql.begin('read only', tx => [tx`SELECT 1::int AS x`, tx`SELECT 2::int AS x`])).map(r => r[0].x), [1, 2]);
  await assert.rejects(sql.begin(async tx => { await tx.savepoint(s => s`SELECT * FROM nowhere`).catch(err => assert.strictEqual(err.code, '42P01')); await tx`SELECT 1 / 0`; }), err => err.code === '22012');
  assert.deepStrictEqual((await sql.unsafe('SELECT 1::int AS x; SELECT 2::int AS x')).map(r => r[0].x), [1, 2]);
  able('parameters', 'yes, prepared, pipelines, pools, cursors');

  const into = await sql`COPY events (ts, path, n) FROM STDIN`.writable();
  await pipeline(Readable.from(['2026-01-01 00:00:00+00\tcopied\t700\n']), into);
  let out = '';
  for await (const chunk of await sql`COPY (SELECT path, n FROM events WHERE n < 10 OR n = 700 ORDER BY n) TO STDOUT (FORMAT csv)`.readable()) out += chunk;
  assert.strictEqual(out, '/a,1\n/b,2\n/b,3\ncopied,700\n');
  able('COPY', 'text, csv');

  await assert.rejects(sql`SELECT * FROM nowhere`, err => err.code === '42P01');
  const slow = sql.unsafe(endless);
  slow.execute();
  setTimeout(() => slow.cancel(), 300);
  await assert.rejects(slow, err => err.code === '57014');
  able('cancel');

  const heard = new Promise(resolve => sql.listen('jobs', resolve).then(() => sql.notify('jobs', 'done')));
  assert.strictEqual(await heard, 'done');
  able('LISTEN');
  await sql.end();
  console.log('postgres.js', version('postgres'), 'ok');
});
