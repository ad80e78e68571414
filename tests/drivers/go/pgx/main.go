// pgx: its five ways to execute a query, batches in one round trip, COPY in binary, pools, cancel by context, notifications.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

func must[T any](value T, err error) T {
	ok(err)
	return value
}

func ok(err error) {
	if err != nil {
		panic(err)
	}
}

func same(got, expected any) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Sprintf("%#v instead of %#v", got, expected))
	}
}

func state(err error) string {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	return fmt.Sprint(err)
}

func main() {
	ctx := context.Background()
	// Password and authority come by libpq's variables.
	where := fmt.Sprintf("host=%s port=%s user=tester dbname=logweir application_name=pgx", os.Args[1], os.Args[2])
	c := must(pgx.Connect(ctx, where))
	if c.PgConn().Conn() != nil && os.Getenv("PGSSLMODE") == "verify-full" {
		fmt.Println("connect: password, TLS")
	}

	at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		var a int32
		var b string
		var when time.Time
		var d float64
		var e bool
		var f string
		var g *string
		ok(c.QueryRow(ctx, "SELECT $1::int, $2::text, $3::timestamptz, $4::float8, $5::bool, ($6::numeric(10,2))::text, NULL::text", mode, int32(42), "häu'ser", at, 0.5, true, "12.50").Scan(&a, &b, &when, &d, &e, &f, &g))
		same([]any{a, b, when.UTC(), d, e, f, g}, []any{int32(42), "häu'ser", at, 0.5, true, "12.50", (*string)(nil)})
		for path, total := range map[string]int64{"/a": 1, "/b": 5} {
			var got int64
			ok(c.QueryRow(ctx, "SELECT total FROM per_path WHERE path = $1", mode, path).Scan(&got))
			same(got, total)
		}
		tag := must(c.Exec(ctx, "INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)", mode, at, "pgx", int64(500)))
		same(tag.String(), "INSERT 0 1")
	}
	type row struct {
		Path string
		N    int64
	}
	rows := must(c.Query(ctx, "SELECT path, n FROM events WHERE n < $1 AND path = ANY($2) ORDER BY n", 10, []string{"/a", "/b"}))
	same(must(pgx.CollectRows(rows, pgx.RowToStructByName[row])), []row{{"/a", 1}, {"/b", 2}, {"/b", 3}})
	fmt.Println("binary: yes")

	var batch pgx.Batch
	for i := range 20 {
		batch.Queue("INSERT INTO events (ts, path, n) VALUES ($1, 'batch', $2)", at, int64(600+i))
	}
	batch.Queue("SELECT count(*) FROM events WHERE path = 'batch'")
	answers := c.SendBatch(ctx, &batch)
	for range 20 {
		must(answers.Exec())
	}
	var count int
	ok(answers.QueryRow().Scan(&count))
	ok(answers.Close())
	same(count, 20)
	// One wrong statement ends its batch; the connection goes on.
	var wrong pgx.Batch
	wrong.Queue("SELECT 1")
	wrong.Queue("SELECT 1 / 0")
	wrong.Queue("SELECT 2")
	same(state(c.SendBatch(ctx, &wrong).Close()), "22012")
	// Pipelines of the wire, without a batch's implicit order.
	pipeline := c.PgConn().StartPipeline(ctx)
	pipeline.SendPrepare("total", "SELECT total FROM per_path WHERE path = $1", nil)
	pipeline.SendQueryPrepared("total", [][]byte{[]byte("/b")}, nil, nil)
	ok(pipeline.Sync())
	ok(pipeline.Close())
	fmt.Println("parameters: yes in each of its modes, batches, pipelines, pools")

	same(must(c.CopyFrom(ctx, pgx.Identifier{"events"}, []string{"ts", "path", "n"}, pgx.CopyFromRows([][]any{{at, "copied", int64(700)}, {at, "copied", int64(701)}}))), int64(2))
	var out bytes.Buffer
	must(c.PgConn().CopyTo(ctx, &out, "COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT (FORMAT csv)"))
	same(out.String(), "/a,1\n/b,2\n/b,3\n")
	must(c.PgConn().CopyFrom(ctx, strings.NewReader("2026-01-01 00:00:00+00\ttext\t702\n"), "COPY events (ts, path, n) FROM STDIN"))
	ok(c.QueryRow(ctx, "SELECT count(*) FROM events WHERE n BETWEEN 700 AND 702").Scan(&count))
	same(count, 3)
	fmt.Println("COPY: text, csv, binary (`CopyFrom`)")

	tx := must(c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}))
	nested := must(tx.Begin(ctx))
	_, err := nested.Exec(ctx, "SELECT * FROM nowhere")
	same(state(err), "42P01")
	ok(nested.Rollback(ctx))
	must(tx.Exec(ctx, "SELECT 1"))
	ok(tx.Commit(ctx))

	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	slow := must(pgx.Connect(ctx, where))
	_, err = slow.Exec(soon, "SELECT count(*) FROM generate_series(1, 100000000000)")
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) {
		panic(err)
	}
	other := must(pgx.Connect(ctx, where))
	go func() {
		time.Sleep(300 * time.Millisecond)
		ok(other.PgConn().CancelRequest(ctx))
	}()
	_, err = other.Exec(ctx, "SELECT count(*) FROM generate_series(1, 100000000000)")
	same(state(err), "57014")
	fmt.Println("cancel: yes")

	must(c.Exec(ctx, "LISTEN jobs"))
	must(other.Exec(ctx, "SELECT pg_notify('jobs', $1)", "done"))
	soon, cancel = context.WithTimeout(ctx, 30*time.Second)
	heard := must(c.WaitForNotification(soon))
	cancel()
	same(*heard, pgconn.Notification{PID: other.PgConn().PID(), Channel: "jobs", Payload: "done"})
	fmt.Println("LISTEN: yes")

	pool := must(pgxpool.New(ctx, where+" pool_max_conns=4"))
	for i := range 20 {
		var got int
		ok(pool.QueryRow(ctx, "SELECT $1::int", i).Scan(&got))
		same(got, i)
	}
	pool.Close()
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/jackc/pgx/v5" {
			fmt.Println("pgx", strings.TrimPrefix(module.Version, "v"), "ok")
		}
	}
}
