// Transfers between two servers, each in one transaction: transfer COUNT
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

func transfer(db *sql.DB, key string, amount int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if _, err = tx.Exec("UPDATE account_berlin SET balance = balance - $1 WHERE id = 1", amount); err != nil {
		return err
	}
	if _, err = tx.Exec("UPDATE account_tokyo SET balance = balance + $1 WHERE id = 1", amount); err != nil {
		return err
	}
	if _, err = tx.Exec("INSERT INTO transfer (id, amount) VALUES ($1, $2)", key, amount); err != nil {
		return err
	}
	return tx.Commit()
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
	for done := 0; done < count; {
		key := fmt.Sprintf("go-%016x", random.Int63())
		if err := transfer(db, key, 1); err != nil {
			fmt.Println("failed", key, err) // rolled back, on all servers
			time.Sleep(100 * time.Millisecond)
			continue
		}
		fmt.Println("done", key)
		done++
	}
}
