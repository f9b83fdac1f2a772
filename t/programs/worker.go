// Work of t/145_worker_libraries.pl: worker FILE DRIVER
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v4/stdlib"
	_ "github.com/lib/pq"

	"dtx"
)

func insert(s *dtx.Step, table, what string) error {
	tx, err := s.Tx()
	if err == nil {
		_, err = tx.Exec("INSERT INTO "+table+" VALUES ($1, $2)", s.Saga, what)
	}
	return err
}

func main() {
	calls, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	// both find the server by PGHOST and so on
	db, err := sql.Open(os.Args[2], "sslmode=disable")
	if err != nil {
		panic(err)
	}
	pay := func(ctx context.Context, s *dtx.Step) (any, error) {
		fmt.Fprintln(calls, s.IdempotencyKey)
		what := map[string]string{"execute": "pay", "compensate": "undo"}[s.Action]
		return map[string]bool{"paid": true}, insert(s, "effect1", what)
	}
	ship := func(ctx context.Context, s *dtx.Step) (any, error) {
		var input struct{ N int }
		if err := json.Unmarshal(s.Input, &input); err != nil {
			return nil, err
		}
		switch {
		case input.N%5 == 0:
			return nil, dtx.GiveUp("nothing is shipped there")
		case input.N%7 == 0 && s.Attempt == 1:
			return nil, dtx.RetryAfter("not yet", 50*time.Millisecond)
		case input.N%11 == 0 && s.Attempt == 1:
			return nil, errors.New("a mistake")
		}
		return nil, insert(s, "effect2", "ship")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var all sync.WaitGroup
	for queue, handler := range map[string]dtx.Handler{"pay": pay, "pay undo": pay, "ship": ship} {
		w := &dtx.Worker{DB: db, Queue: queue, Handler: handler, Concurrency: 2, Lease: 3 * time.Second, Wait: 5 * time.Second}
		all.Add(1)
		go func() {
			defer all.Done()
			w.Run(ctx)
		}()
	}
	all.Wait()
}
