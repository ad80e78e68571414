// TypeORM (over node-postgres): entities over a stream and a view, its query builder, what it asks of the catalog.
const assert = require('assert');
const { DataSource, EntitySchema } = require('typeorm');
const { where, tls, connected, able, run, version } = require('./report.js');

const Event = new EntitySchema({ name: 'Event', tableName: 'events', columns: { ts: { type: 'timestamptz', primary: true }, path: { type: 'text' }, n: { type: 'bigint' } } });
const PerPath = new EntitySchema({ name: 'PerPath', tableName: 'per_path', columns: { path: { type: 'text', primary: true }, total: { type: 'bigint' } } });

run(async () => {
  const { user, ...others } = where;
  const source = new DataSource({ type: 'postgres', ...others, username: user, ssl: tls, entities: [Event, PerPath], synchronize: false });
  await source.initialize();
  able('connect', connected);
  const runner = source.createQueryRunner();
  assert.strictEqual(await runner.hasTable('events'), true);
  assert.strictEqual(await runner.hasColumn('events', 'path'), true);
  const table = await runner.getTable('events');
  assert.deepStrictEqual(table.columns.map(c => [c.name, c.type]), [['ts', 'timestamp with time zone'], ['path', 'text'], ['n', 'bigint']]);
  assert.strictEqual(await runner.getCurrentDatabase(), 'logweir');
  assert.strictEqual(await runner.hasDatabase('logweir') && await runner.hasSchema('public'), true);
  await runner.release();
  able('introspect', '`hasTable`, `hasColumn`, `getTable`, `hasSchema`');
  assert.deepStrictEqual(await source.getRepository(PerPath).findOneBy({ path: '/b' }), { path: '/b', total: '5' });
  const events = source.getRepository(Event);
  await events.insert([{ ts: new Date(), path: 'typeorm', n: '500' }, { ts: new Date(), path: 'typeorm', n: '501' }]);
  const [found, count] = await events.findAndCount({ where: { path: 'typeorm' }, order: { n: 'DESC' }, take: 1 });
  assert.deepStrictEqual([found.map(e => e.n), count], [['501'], 2]);
  const grouped = await events.createQueryBuilder('e').select('e.path', 'path').addSelect('SUM(e.n)', 'total').where('e.n < :most', { most: 10 }).groupBy('e.path').orderBy('path').getRawMany();
  assert.deepStrictEqual(grouped, [{ path: '/a', total: '1' }, { path: '/b', total: '5' }]);
  await source.transaction('REPEATABLE READ', manager => manager.query('SELECT $1::int', [1]));
  await assert.rejects(source.query('SELECT * FROM nowhere'), err => err.driverError.code === '42P01');
  able('parameters', 'yes, entities, query builder, transactions');
  await source.destroy();
  console.log('TypeORM', version('typeorm'), 'ok');
});
