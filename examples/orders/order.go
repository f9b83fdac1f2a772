// The order service.  POST /orders {"id": "42", "item": "book", "card": "4111", "address": "Main Street"}
// starts a saga; GET /orders/42 says what has become of it; with ?wait it waits for the end.
package main

import (
	"database/sql"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	_ "github.com/lib/pq"

	"dtx"
)

type order struct {
	ID      string `json:"id"`
	Item    string `json:"item"`
	Card    string `json:"card"`
	Address string `json:"address"`
}

func answer(w http.ResponseWriter, status int, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(what)
}

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&o) != nil || o.ID == "" {
			answer(w, http.StatusBadRequest, "an order has an id")
			return
		}
		// the same id is the same saga, so a client may repeat this
		saga, err := dtx.Start(r.Context(), db, "order service", o, o.ID)
		if err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusAccepted, map[string]int64{"saga": saga})
	})
	http.HandleFunc("/orders/", func(w http.ResponseWriter, r *http.Request) {
		var saga int64
		var state string
		var reason *string
		find := func() error {
			return db.QueryRowContext(r.Context(),
				"SELECT id, state, reason FROM dtx.sagas WHERE name = 'order service' AND key = $1",
				strings.TrimPrefix(r.URL.Path, "/orders/")).Scan(&saga, &state, &reason)
		}
		err := find()
		if err == nil && r.URL.Query().Has("wait") {
			if _, err = dtx.Wait(r.Context(), db, saga, 30*time.Second); err == nil {
				err = find()
			}
		}
		switch {
		case err == sql.ErrNoRows:
			answer(w, http.StatusNotFound, "no such order")
		case err != nil:
			answer(w, http.StatusServiceUnavailable, err.Error())
		default:
			answer(w, http.StatusOK, map[string]any{"saga": saga, "state": state, "reason": reason})
		}
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
