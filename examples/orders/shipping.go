// The shipping service: sends parcels.  It is the point of no return of an order.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os/signal"
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

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	(&dtx.Worker{DB: db, Queue: "parcels", Handler: ship, Lease: 10 * time.Second}).Run(ctx)
}
