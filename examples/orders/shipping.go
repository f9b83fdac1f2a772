// The shipping service: sends parcels, and calls back those of which it is not known whether they
// were sent, because a worker has died meanwhile.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/lib/pq"

	"dtx"
)

func ship(ctx context.Context, s *dtx.Step) (any, error) {
	var input struct{ Address string }
	if err := json.Unmarshal(s.Input, &input); err != nil {
		return nil, err
	}
	if input.Address == "" {
		return nil, dtx.GiveUp("there is no address")
	}
	// Here the carrier would be called, with the idempotency key.
	return map[string]string{"parcel": fmt.Sprintf("P-%d", s.Saga)}, nil
}

func recall(ctx context.Context, s *dtx.Step) (any, error) {
	// Here the carrier would be told that the parcel is not to be delivered, if there is one.
	return nil, nil
}

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var all sync.WaitGroup
	for queue, handler := range map[string]dtx.Handler{"parcels": ship, "recalls": recall} {
		w := &dtx.Worker{DB: db, Queue: queue, Handler: handler, Lease: 10 * time.Second}
		all.Add(1)
		go func() {
			defer all.Done()
			w.Run(ctx)
		}()
	}
	all.Wait()
}
