// Prisma's client (with its compiler of queries in WebAssembly and node-postgres below): models over a stream and a view.
// Its schema engine, which reads a catalog (`db pull`), is a program that it downloads.
const assert = require('assert');
const { where, tls, connected, able, run, version } = require('./report.js');
const { PrismaClient } = require('@prisma/client');
const { PrismaPg } = require('@prisma/adapter-pg');

run(async () => {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ ...where, ssl: tls }) });
  assert.deepStrictEqual(await prisma.per_path.findUnique({ where: { path: '/b' } }), { path: '/b', total: 5n });
  able('connect', connected);
  const at = new Date(Date.UTC(2026, 0, 2));
  await prisma.events.createMany({ data: [...Array(5).keys()].map(i => ({ ts: at, path: 'prisma', n: BigInt(500 + i) })) });
  assert.strictEqual(await prisma.events.count({ where: { path: 'prisma', n: { gte: 502n } } }), 3);
  const found = await prisma.events.findMany({ where: { OR: [{ path: { startsWith: '/' } }, { n: { in: [500n] } }] }, orderBy: { n: 'asc' }, skip: 1, take: 3 });
  assert.deepStrictEqual(found.map(e => e.n), [2n, 3n, 500n]);
  const grouped = await prisma.events.groupBy({ by: ['path'], _sum: { n: true }, where: { n: { lt: 10n } }, orderBy: { path: 'asc' } });
  assert.deepStrictEqual(grouped.map(g => [g.path, g._sum.n]), [['/a', 1n], ['/b', 5n]]);
  assert.deepStrictEqual(await prisma.$queryRaw`SELECT total FROM per_path WHERE path = ${'/b'}`, [{ total: 5n }]);
  await prisma.$transaction(async tx => { assert.strictEqual(await tx.events.count({ where: { n: 1n } }), 1); }, { isolationLevel: 'Serializable' });
  await assert.rejects(prisma.$queryRaw`SELECT * FROM nowhere`, err => JSON.stringify(err.meta).includes('42P01') || err.message.includes('42P01'));
  able('parameters', 'yes, models, transactions');
  await prisma.$disconnect();
  console.log('Prisma', version('@prisma/client'), 'ok');
});
