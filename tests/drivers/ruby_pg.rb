# Ruby's pg, under ActiveRecord and Sequel.
require 'pg'
require 'time'

def same(got, expected) = got == expected || raise("#{got.inspect} instead of #{expected.inspect}")

host, port = ARGV
# Password and authority come by libpq's variables.
where = { host: host, port: port, user: 'tester', dbname: 'logweir', application_name: 'ruby' }
c = PG.connect(**where)
puts "connect: #{c.ssl_in_use? ? 'password, TLS' : 'yes'}"
c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
at = Time.utc(2026, 1, 2, 3, 4, 5, 678)
row = c.exec_params('SELECT $1::int, $2::text, $3::timestamptz, $4::float8, $5::bool, NULL::text, ARRAY[1::bigint, 2::bigint]', [42, "häuser", at.iso8601(6), 0.5, true]).values[0]
same(row, [42, 'häuser', at, 0.5, true, nil, [1, 2]])
# The same in binary.
binary = c.exec_params('SELECT $1::int, $2::text, 0.5::float8, $3::bytea', [42, 'häuser', { value: "\x00\xff".b, format: 1 }], 1).values[0]
same(binary, [42, 'häuser', 0.5, "\x00\xff".b])
puts 'binary: yes'
c.prepare('total', 'SELECT total FROM per_path WHERE path = $1')
same(c.describe_prepared('total').paramtype(0), 25)
same(%w[/a /b].map { |path| c.exec_prepared('total', [path]).getvalue(0, 0) }, [1, 5])
c.transaction { 3.times { |i| same(c.exec_params('INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)', [at.iso8601(6), "ruby", 500 + i]).cmd_tuples, 1) } }
same(c.exec_params('SELECT count(*) FROM events WHERE path = $1', ['ruby']).getvalue(0, 0), 3)
# A pipeline, and rows one by one as they come.
c.enter_pipeline_mode
c.send_query_params('SELECT $1::int', [1])
c.send_query_params('SELECT 1 / 0', [])
c.send_query_params('SELECT 2', [])
c.pipeline_sync
answers = []
answers << c.get_result until answers.last&.result_status == PG::PGRES_PIPELINE_SYNC
one, failed, skipped, = answers.compact
same([one.values, failed.error_field(PG::PG_DIAG_SQLSTATE), skipped.result_status], [[[1]], '22012', PG::PGRES_PIPELINE_ABORTED])
c.exit_pipeline_mode
c.send_query('SELECT i FROM generate_series(1, 1000) AS s(i)')
c.set_single_row_mode
same(c.get_result.stream_each_row.sum { |r| r[0].to_i }, 500_500)
c.get_result
puts 'parameters: yes, prepared, pipelines, single-row mode'

c.copy_data('COPY events (ts, path, n) FROM STDIN (FORMAT csv)') { c.put_copy_data("2026-01-01 00:00:00+00,\"a,b\",700\n") }
out = +''
c.copy_data('COPY (SELECT path, n FROM events WHERE n < 10 OR n = 700 ORDER BY n) TO STDOUT') { while (line = c.get_copy_data) do out << line end }
same(out, "/a\t1\n/b\t2\n/b\t3\na,b\t700\n")
begin
  c.copy_data('COPY events (ts, path, n) FROM STDIN') { raise 'given up' }
rescue RuntimeError => e
  same(e.message, 'given up')
end
same(c.exec('SELECT 1').getvalue(0, 0), 1)
puts 'COPY: text, csv'

begin
  c.exec('SELECT * FROM nowhere')
  raise 'did not fail'
rescue PG::UndefinedTable => e
  same(e.result.error_field(PG::PG_DIAG_SQLSTATE), '42P01')
end
c.send_query('SELECT count(*) FROM generate_series(1, 100000000000)')
sleep 0.3
c.cancel
begin
  c.get_last_result
  raise 'was not canceled'
rescue PG::QueryCanceled
end
puts 'cancel: yes'

c.exec('LISTEN jobs')
other = PG.connect(**where)
other.exec("NOTIFY jobs, 'done'")
heard = nil
c.wait_for_notify(30) { |channel, pid, payload| heard = [channel, pid, payload] }
same(heard, ['jobs', other.backend_pid, 'done'])
puts 'LISTEN: yes'
c.exec('UNLISTEN *')
c.reset
same(c.exec('SELECT 1').getvalue(0, 0), 1)
puts "Ruby pg #{PG::VERSION} ok"
