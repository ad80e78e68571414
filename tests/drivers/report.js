// What the programs of Node share: where the server is, and how they tell what they have seen to work (see report.py).
const fs = require('fs');
const authority = process.env.PGSSLROOTCERT;
exports.where = { host: process.argv[2], port: Number(process.argv[3]), user: 'tester', database: 'logweir', password: process.env.PGPASSWORD };
exports.tls = authority ? { ca: fs.readFileSync(authority) } : false;
exports.connected = authority ? 'password, TLS' : 'yes';
exports.able = (column, what = 'yes') => console.log(`${column}: ${what}`);
exports.endless = 'SELECT count(*) FROM generate_series(1, 100000000000)';
exports.run = program => program().then(() => process.exit(0), err => { console.error(err); process.exit(1); });
exports.version = name => JSON.parse(fs.readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)).version;
