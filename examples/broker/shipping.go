// Ships parcels: a service that knows RabbitMQ, and not PostgreSQL.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run shipping.go PORT
//
// Every third attempt fails for the moment, and is asked to be repeated.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

type command struct {
	Saga  int64           `json:"saga"`
	Step  string          `json:"step"`
	Key   string          `json:"idempotency_key"`
	Input json.RawMessage `json:"input"`
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	connection, err := amqp.Dial("amqp://guest:guest@127.0.0.1:" + os.Args[1] + "/")
	check(err)
	channel, err := connection.Channel()
	check(err)
	check(channel.Confirm(false))
	check(channel.Qos(20, 0, false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	commands, err := channel.Consume("shipping", "", false, false, false, false, nil)
	check(err)

	// What was shipped, by idempotency key: a command may come twice.
	shipped := map[string]string{}
	attempts := 0
	for delivery := range commands {
		var c command
		check(json.Unmarshal(delivery.Body, &c))
		attempts++
		status := "ok"
		reply := map[string]interface{}{}
		if _, ok := shipped[c.Key]; !ok && attempts%3 == 0 {
			status = "retry"
			reply["error"] = "the truck is full"
		} else {
			if !ok {
				shipped[c.Key] = fmt.Sprintf("T-%d", c.Saga)
			}
			reply["result"] = map[string]string{"tracking": shipped[c.Key]}
		}
		body, err := json.Marshal(reply)
		check(err)
		id := make([]byte, 16)
		_, err = rand.Read(id)
		check(err)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		check(channel.PublishWithContext(ctx, "", delivery.ReplyTo, true, false, amqp.Publishing{
			MessageId:     hex.EncodeToString(id),
			CorrelationId: delivery.CorrelationId,
			ContentType:   "application/json",
			DeliveryMode:  amqp.Persistent,
			Headers:       amqp.Table{"status": status},
			Body:          body,
		}))
		cancel()
		// the command is acknowledged when the broker has the reply
		if confirmed := <-confirms; !confirmed.Ack {
			log.Fatal("the reply was refused")
		}
		check(delivery.Ack(false))
	}
}
