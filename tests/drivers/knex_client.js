// Knex, the query builder (over node-postgres): its schema questions, bindings, streams, batches, transactions.
const assert = require('assert');
const { where, tls, connected, able, endless, run, version } = require('./report.js');

run(async () => {
  const knex = require('knex')({ client: 'pg', connection: { ...where, ssl: tls }, pool: { min: 0, max: 4 } });
  assert.strictEqual(await knex.schema.hasTable('events'), true);
  able('connect', connected);
  assert.strictEqual(await knex.schema.hasTable('nowhere'), false);
  assert.strictEqual(await knex.schema.hasColumn('events', 'path'), true);
  const columns = await knex('events').columnInfo();
  assert.deepStrictEqual(Object.entries(columns).map(([name, c]) => [name, c.type]).sort(), [['n', 'bigint'], ['path', 'text'], ['ts', 'timestamp with time zone']]);
  able('introspect', '`hasTable`, `hasColumn`, `columnInfo`');
  const rows = await knex('events').select('path').count('* as rows').sum('n as total').where('n', '<', 10).whereIn('path', ['/a', '/b']).groupBy('path').havingRaw('count(*) > ?', [0]).orderBy('path').limit(10).offset(0);
  assert.deepStrictEqual(rows, [{ path: '/a', rows: '1', total: '1' }, { path: '/b', rows: '2', total: '5' }]);
  const at = new Date(Date.UTC(2026, 0, 2, 3, 4, 5));
  await knex.batchInsert('events', [...Array(50).keys()].map(i => ({ ts: at, path: 'knex', n: 500 + i })), 20);
  assert.deepStrictEqual(await knex('events').where({ path: 'knex' }).count('* as rows').first(), { rows: '50' });
  assert.strictEqual((await knex.raw('SELECT ?::int AS a', [7])).rows[0].a, 7);
  await knex.transaction(async tx => { assert.deepStrictEqual(await tx('per_path').where('path', '/b').pluck('total'), ['5']); }, { readOnly: true });
  able('parameters', 'yes, batches, transactions, pools');
  await assert.rejects(knex('nowhere').select(), err => err.code === '42P01');
  await assert.rejects(knex.raw(endless).timeout(300, { cancel: true }), err => err.name === 'KnexTimeoutError');
  able('cancel', 'by its `timeout`');
  await knex.destroy();
  console.log('Knex', version('knex'), 'ok');
});
