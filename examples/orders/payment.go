// The payment service: charges cards, and gives the money back when an order is undone.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"log"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/lib/pq"

	"dtx"
)

func charge(ctx context.Context, s *dtx.Step) (any, error) {
	var input struct{ Card string }
	if err := json.Unmarshal(s.Input, &input); err != nil {
		return nil, err
	}
	if input.Card == "" || input.Card == "0000" {
		return nil, dtx.GiveUp("the card is not accepted")
	}
	// Here a provider would be called, with the idempotency key.  Our own books, which are on
	// another server, are kept together with the report.
	tx, err := s.Tx()
	if err == nil {
		_, err = tx.Exec("INSERT INTO charge VALUES ($1, $2, 20)", s.IdempotencyKey, s.Saga)
	}
	return map[string]string{"receipt": s.IdempotencyKey}, err
}

func refund(ctx context.Context, s *dtx.Step) (any, error) {
	tx, err := s.Tx()
	if err == nil {
		_, err = tx.Exec("INSERT INTO charge VALUES ($1, $2, -20)", s.IdempotencyKey, s.Saga)
	}
	return nil, err
}

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var all sync.WaitGroup
	for queue, handler := range map[string]dtx.Handler{"charges": charge, "refunds": refund} {
		w := &dtx.Worker{DB: db, Queue: queue, Handler: handler, Lease: 10 * time.Second}
		all.Add(1)
		go func() {
			defer all.Done()
			w.Run(ctx)
		}()
	}
	all.Wait()
}
