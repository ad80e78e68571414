// lib/pq under database/sql, as Grafana's older data source, Terraform and many exporters use it.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/lib/pq"
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
	var told *pq.Error
	if errors.As(err, &told) {
		return string(told.Code)
	}
	return fmt.Sprint(err)
}

func main() {
	ctx := context.Background()
	where := fmt.Sprintf("host=%s port=%s user=tester dbname=logweir application_name=pq", os.Args[1], os.Args[2])
	mode := "disable"
	if os.Getenv("PGSSLMODE") == "verify-full" {
		mode = "verify-full"
	}
	where += " sslmode=" + mode
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	// With binary_parameters the driver sends Parse, Bind and Execute in one go, without it it prepares first.
	for _, binary := range []string{"no", "yes"} {
		db := must(sql.Open("postgres", where+" binary_parameters="+binary))
		ok(db.Ping())
		var a int
		var b string
		var when time.Time
		var d float64
		var e bool
		var f string
		var g sql.NullString
		var h []int64
		ok(db.QueryRow("SELECT $1::int, $2::text, $3::timestamptz, $4::float8, $5::bool, $6::numeric(10,2), $7::text, ARRAY[1::bigint, 2::bigint]", 42, "häuser", at, 0.5, true, "12.50", nil).Scan(&a, &b, &when, &d, &e, &f, &g, pq.Array(&h)))
		same([]any{a, b, when.UTC(), d, e, f, g.Valid, h}, []any{42, "häuser", at, 0.5, true, "12.50", false, []int64{1, 2}})
		total := must(db.Prepare("SELECT total FROM per_path WHERE path = $1"))
		for path, expected := range map[string]int64{"/a": 1, "/b": 5} {
			var got int64
			ok(total.QueryRow(path).Scan(&got))
			same(got, expected)
		}
		tx := must(db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead}))
		for i := range 5 {
			result := must(tx.Exec("INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)", at, "pq"+binary, 500+i))
			same(must(result.RowsAffected()), int64(1))
		}
		ok(tx.Commit())
		var count int
		ok(db.QueryRow("SELECT count(*) FROM events WHERE path = $1 AND n = ANY($2)", "pq"+binary, pq.Array([]int64{500, 501})).Scan(&count))
		same(count, 2)
		ok(db.Close())
	}
	fmt.Println("connect: " + map[string]string{"verify-full": "password, TLS", "disable": "yes"}[mode])
	fmt.Println("parameters: yes, prepared, `binary_parameters`")

	db := must(sql.Open("postgres", where))
	tx := must(db.Begin())
	copying := must(tx.Prepare(pq.CopyIn("events", "ts", "path", "n")))
	for i := range 100 {
		must(copying.Exec(at, "copied", 700+i))
	}
	must(copying.Exec())
	ok(copying.Close())
	ok(tx.Commit())
	var count int
	ok(db.QueryRow("SELECT count(*) FROM events WHERE path = 'copied'").Scan(&count))
	same(count, 100)
	fmt.Println("COPY: text, in only")

	_, err := db.Query("SELECT * FROM nowhere")
	same(state(err), "42P01")
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = db.ExecContext(soon, "SELECT count(*) FROM generate_series(1, 100000000000)")
	cancel()
	same(state(err), "57014")
	fmt.Println("cancel: yes")

	listener := pq.NewListener(where, time.Second, time.Minute, nil)
	ok(listener.Listen("jobs"))
	must(db.Exec("SELECT pg_notify('jobs', $1)", "done"))
	for heard := range listener.Notify {
		if heard != nil {
			same([]string{heard.Channel, heard.Extra}, []string{"jobs", "done"})
			break
		}
	}
	ok(listener.Close())
	fmt.Println("LISTEN: yes")
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/lib/pq" {
			fmt.Println("pq", strings.TrimPrefix(module.Version, "v"), "ok")
		}
	}
}
