# Perl's DBD::Pg: DBI's catalog methods, placeholders of each kind, COPY, asynchronous queries, notifications.
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);

sub same {
    my ($got, $expected) = map { join '|', map { defined ? $_ : 'NULL' } ref $_ ? @$_ : $_ } @_;
    $got eq $expected or die "$got instead of $expected";
}

my ($host, $port) = @ARGV;
my $tls = ($ENV{PGSSLMODE} // '') eq 'verify-full';
my $dsn = "dbi:Pg:host=$host;port=$port;dbname=logweir;application_name=perl";
my $c = DBI->connect($dsn, 'tester', $ENV{PGPASSWORD} // 'x', { RaiseError => 1, PrintError => 0, AutoCommit => 1, pg_enable_utf8 => 1 });
print 'connect: ', $tls ? 'password, TLS' : 'yes', "\n";
same([$c->{pg_server_version} >= 150000], [1]);

same([map { $_->[2] } @{ $c->table_info(undef, 'public', 'events', 'TABLE')->fetchall_arrayref }], ['events']);
same([map { "$_->[3] $_->[5] $_->[16]" } @{ $c->column_info(undef, 'public', 'events', '%')->fetchall_arrayref }], ['ts timestamp with time zone 1', 'path text 2', 'n bigint 3']);
my $keys = $c->primary_key_info(undef, 'public', 'events');
same([scalar($keys ? @{ $keys->fetchall_arrayref } : ())], [0]);
same([grep { $_ eq '"public"."plain"' || $_ eq 'public.plain' } $c->tables(undef, 'public', 'plain', 'VIEW')], ['public.plain']);
same([$c->ping], [1]);
print "introspect: `table_info`, `column_info`, keys\n";

for my $prepare (0, 1) {
    $c->{pg_server_prepare} = $prepare;
    my $row = $c->selectrow_arrayref('SELECT ?::int, ?::text, ?::timestamptz, ?::float8, ?::bool, ?::numeric(10,2), ?::text', undef, 42, "häu'ser", '2026-01-02 03:04:05.678+00', 0.5, 't', '12.50', undef);
    same($row, [42, "häu'ser", '2026-01-02 03:04:05.678+00', 0.5, 1, '12.50', undef]);
    my $total = $c->prepare('SELECT total FROM per_path WHERE path = $1');
    for (['/a', 1], ['/b', 5]) {
        $total->execute($_->[0]);
        same([$total->fetchrow_array], [$_->[1]]);
    }
    my $bytes = $c->prepare('SELECT ?::bytea');
    $bytes->bind_param(1, "\x00\xff", { pg_type => PG_BYTEA });
    $bytes->execute;
    same([$bytes->fetchrow_array], ["\x00\xff"]);
    my $insert = $c->prepare('INSERT INTO events (ts, path, n) VALUES (?, ?, ?)');
    $insert->execute_array({}, '2026-01-01 00:00:00+00', 'perl', [500, 501, 502]);
    same([$c->selectrow_array("SELECT path, n FROM events WHERE path = ANY(?) AND n < 10 ORDER BY n LIMIT 1", undef, ['/a', '/b'])], ['/a', 1]);
}
$c->begin_work;
$c->pg_savepoint('here');
eval { $c->do('SELECT * FROM nowhere') };
same([$c->state], ['42P01']);
eval { $c->do('SELECT 1') };
same([$c->state], ['25P02']);
$c->pg_rollback_to('here');
$c->do('DECLARE portions CURSOR FOR SELECT i FROM generate_series(1, 35) AS s(i)');
same([map { $_->[0] } @{ $c->selectall_arrayref('FETCH 3 FROM portions') }], [1, 2, 3]);
$c->rollback;
print "parameters: yes, prepared, cursors\n";

$c->do('COPY events (ts, path, n) FROM STDIN');
$c->pg_putcopydata("2026-01-01 00:00:00+00\tcopied\t700\n");
$c->pg_putcopyend;
$c->do('COPY (SELECT path, n FROM events WHERE n < 10 OR n = 700 ORDER BY n) TO STDOUT (FORMAT csv)');
my ($all, $line) = ('', '');
$all .= $line while $c->pg_getcopydata($line) >= 0;
same([$all], ["/a,1\n/b,2\n/b,3\ncopied,700\n"]);
print "COPY: text, csv\n";

$c->do('SELECT count(*) FROM generate_series(1, 100000000000)', { pg_async => PG_ASYNC });
select undef, undef, undef, 0.3;
$c->pg_cancel;
same([$c->selectrow_array('SELECT 1')], [1]);
print "cancel: yes\n";

$c->do('LISTEN jobs');
my $other = DBI->connect($dsn, 'tester', $ENV{PGPASSWORD} // 'x', { RaiseError => 1 });
$other->do("NOTIFY jobs, 'done'");
my $heard;
for (1 .. 300) {
    last if $heard = $c->pg_notifies;
    select undef, undef, undef, 0.1;
}
same($heard, ['jobs', $other->{pg_pid}, 'done']);
print "LISTEN: yes\n";
$_->disconnect for $c, $other;
print "DBD::Pg $DBD::Pg::VERSION ok\n";
