// Package dtx does work outside of the database for sagas of pg_dtx.  It uses database/sql, so
// lib/pq and pgx (stdlib) both do.
//
//	db, _ := sql.Open("postgres", "dbname=app")
//	w := &dtx.Worker{DB: db, Queue: "hotels", Handler: func(ctx context.Context, s *dtx.Step) (any, error) {
//		if hotel.Full(s.Input) {
//			return nil, dtx.GiveUp("the hotel is full")
//		}
//		return hotel.Book(ctx, s.Input, s.IdempotencyKey)
//	}}
//	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
//	defer stop()
//	w.Run(ctx)
//
// What a handler returns is the result of the step, as encoding/json writes it.  Its error says
// what becomes of the step: GiveUp, Retry, RetryAfter, Release; any other error is a Retry.
//
// Outside of the database a step is done at least once: a worker may die when the hotel has booked and
// the database does not know it yet.  Give the service the idempotency key.  What a handler does in
// Step.Tx is done exactly once: it commits together with the report.
package dtx

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// A Step, or the compensation of one, that this worker has claimed.
type Step struct {
	Token          string
	Saga           int64
	Name           string // of the definition
	Step           string
	Action         string // "execute" or "compensate"
	Attempt        int
	Payload        json.RawMessage // null: nil
	Input          json.RawMessage
	Results        json.RawMessage
	IdempotencyKey string

	db *sql.DB
	tx *sql.Tx
}

// Tx is a transaction that commits with the report that the step is done.
func (s *Step) Tx() (*sql.Tx, error) {
	var err error
	if s.tx == nil {
		// not of the step's context: the report is to be made even if that has ended
		s.tx, err = s.db.BeginTx(context.Background(), nil)
	}
	return s.tx, err
}

// A Handler does a step.  Its context ends when the saga has turned back, or the lease is lost; then
// the work may stop.
type Handler func(ctx context.Context, s *Step) (result any, err error)

type outcome struct {
	message string
	retry   bool
	after   time.Duration
	release bool
}

func (o *outcome) Error() string { return o.message }

// GiveUp: nothing was done, and never will be.  The saga turns back.
func GiveUp(message string) error { return &outcome{message: message} }

// Retry: nothing was done.  Again, after the pause of the definition.
func Retry(message string) error { return &outcome{message: message, retry: true} }

// RetryAfter: nothing was done.  Again after that time.
func RetryAfter(message string, after time.Duration) error {
	return &outcome{message: message, retry: true, after: after}
}

// Release: nothing was done, and this worker will not do it.  No attempt is lost.
func Release() error { return &outcome{message: "released", release: true} }

// A Worker takes steps from a queue.
type Worker struct {
	DB          *sql.DB
	Queue       string
	Handler     Handler
	Name        string        // what operators see; "": host and process
	Concurrency int           // steps at a time; 0: one
	Lease       time.Duration // after which a step of a silent worker is another one's; 0: a minute
	Wait        time.Duration // how long the database waits for work; 0: half a minute
}

// Run works until ctx ends; what is being worked on is finished then.
func (w *Worker) Run(ctx context.Context) {
	if w.Name == "" {
		host, _ := os.Hostname()
		w.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if w.Lease == 0 {
		w.Lease = time.Minute
	}
	if w.Wait == 0 {
		w.Wait = 30 * time.Second
	}
	var all sync.WaitGroup
	for i := 0; i == 0 || i < w.Concurrency; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			w.serve(ctx)
		}()
	}
	all.Wait()
}

func (w *Worker) serve(ctx context.Context) {
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		step, err := w.claim(ctx)
		if err == nil && step != nil {
			err = w.do(step)
		}
		if err == nil {
			pause = 100 * time.Millisecond
			continue
		}
		if ctx.Err() != nil {
			return
		}
		log.Printf("queue %s: %v", w.Queue, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if pause *= 2; pause > 10*time.Second {
			pause = 10 * time.Second
		}
	}
}

func (w *Worker) claim(ctx context.Context) (*Step, error) {
	s := &Step{db: w.DB}
	err := w.DB.QueryRowContext(ctx,
		`SELECT token, saga, name, step, action, attempt, payload, input, results, idempotency_key
		   FROM dtx.claim_step($1, $2, lease => make_interval(secs => $3), wait => make_interval(secs => $4))`,
		w.Queue, w.Name, w.Lease.Seconds(), w.Wait.Seconds()).
		Scan(&s.Token, &s.Saga, &s.Name, &s.Step, &s.Action, &s.Attempt,
			(*[]byte)(&s.Payload), (*[]byte)(&s.Input), (*[]byte)(&s.Results), &s.IdempotencyKey)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return s, err
}

func (w *Worker) do(s *Step) error {
	ctx, cancel := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	keeper.Add(1)
	go func() {
		defer keeper.Done()
		w.keep(ctx, cancel, s)
	}()
	result, err := w.call(ctx, s)
	cancel()
	keeper.Wait()

	var o *outcome
	switch {
	case err == nil:
		text, err := json.Marshal(result)
		if err != nil {
			return w.report(s, false, "SELECT dtx.fail_step($1, $2, retry => false)", s.Token, "result: "+err.Error())
		}
		return w.report(s, true, "SELECT dtx.complete_step($1, $2)", s.Token, string(text))
	case !errors.As(err, &o):
		return w.report(s, false, "SELECT dtx.fail_step($1, $2)", s.Token, err.Error())
	case o.release:
		return w.report(s, false, "SELECT dtx.release_step($1)", s.Token)
	case o.after > 0:
		return w.report(s, false, "SELECT dtx.fail_step($1, $2, retry_after => make_interval(secs => $3))",
			s.Token, o.message, o.after.Seconds())
	default:
		return w.report(s, false, "SELECT dtx.fail_step($1, $2, retry => $3)", s.Token, o.message, o.retry)
	}
}

// A panic of the handler is an error of the step.
func (w *Worker) call(ctx context.Context, s *Step) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return w.Handler(ctx, s)
}

// In the handler's transaction if there is one and all went well; else in one of its own.
func (w *Worker) report(s *Step, done bool, query string, args ...any) error {
	var err error
	switch {
	case s.tx != nil && done:
		if _, err = s.tx.Exec(query, args...); err == nil {
			err = s.tx.Commit()
		} else {
			_ = s.tx.Rollback()
		}
	default:
		if s.tx != nil {
			_ = s.tx.Rollback()
		}
		_, err = w.DB.Exec(query, args...)
	}
	if leaseLost(err) {
		log.Printf("saga %d, step %s: %v", s.Saga, s.Step, err)
		return nil
	}
	return err
}

// Keep the lease of a step, and look whether the saga has turned back.
func (w *Worker) keep(ctx context.Context, cancel context.CancelFunc, s *Step) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.Lease / 3):
		}
		var canceled bool
		err := w.DB.QueryRowContext(ctx,
			"SELECT canceled FROM dtx.heartbeat_step($1, make_interval(secs => $2))",
			s.Token, w.Lease.Seconds()).Scan(&canceled)
		if canceled || leaseLost(err) {
			cancel()
		}
	}
}

// Object_not_in_prerequisite_state: the lease of the step is over.  Both drivers' errors tell.
func leaseLost(err error) bool {
	var pgx interface{ SQLState() string }
	var pq interface{ Get(byte) string }
	if errors.As(err, &pgx) {
		return pgx.SQLState() == "55000"
	}
	return errors.As(err, &pq) && pq.Get('C') == "55000"
}
