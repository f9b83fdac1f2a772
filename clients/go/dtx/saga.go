package dtx

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// Queryer is a *sql.DB, *sql.Conn or *sql.Tx.
type Queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Start starts a saga, as part of the transaction of q, and returns its number.  With the same key
// it is the same saga; "": no key.
func Start(ctx context.Context, q Queryer, saga string, input any, key string) (id int64, err error) {
	text, err := json.Marshal(input)
	if err != nil {
		return 0, err
	}
	err = q.QueryRowContext(ctx, "SELECT dtx.start_saga($1, $2, nullif($3, ''))", saga, string(text), key).Scan(&id)
	return
}

// Wait waits for the end of a saga, as long as that takes with a timeout of 0, and returns its state.
func Wait(ctx context.Context, q Queryer, saga int64, timeout time.Duration) (state string, err error) {
	err = q.QueryRowContext(ctx, "SELECT dtx.wait_saga($1, nullif($2::float8, 0) * interval '1 s')",
		saga, timeout.Seconds()).Scan(&state)
	return
}

// Signal gives a saga the signal that its step of that name waits for.
func Signal(ctx context.Context, q Queryer, saga int64, name string, payload any) (news bool, err error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return false, err
	}
	err = q.QueryRowContext(ctx, "SELECT dtx.signal_saga($1, $2, $3)", saga, name, string(text)).Scan(&news)
	return
}
