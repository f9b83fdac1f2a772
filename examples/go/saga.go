// Sagas, one after the other: saga COUNT
package main

import (
	"database/sql"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	_ "github.com/lib/pq"
)

func transfer(db *sql.DB, key string, amount int) (state string, err error) {
	var saga int64

	// the same key is the same saga, so this may be repeated
	input := fmt.Sprintf(`{"key": "%s", "amount": %d}`, key, amount)
	if err = db.QueryRow("SELECT dtx.start_saga('transfer', $1, $2)", input, key).Scan(&saga); err != nil {
		return
	}
	err = db.QueryRow("SELECT dtx.wait_saga($1)", saga).Scan(&state)
	return
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	db, err := sql.Open("postgres", "sslmode=disable")
	if err != nil {
		panic(err)
	}
	random := rand.New(rand.NewSource(time.Now().UnixNano()))
	for i := 0; i < count; i++ {
		key := fmt.Sprintf("go-saga-%016x", random.Int63())
		state, err := transfer(db, key, 1)
		if err != nil {
			panic(err)
		}
		fmt.Println(state, key)
	}
}
