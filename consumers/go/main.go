// Takes amount and currency, answers paymentStatus; the rules are in the README beside it.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

type object = map[string]any

func work(body []byte, tell func(outcome string, answer object)) {
	var task struct {
		Retries   *int
		Variables struct {
			Amount   json.Number
			Currency string
		}
	}
	task.Variables.Currency = "EUR" // null leaves it so
	err := json.Unmarshal(body, &task)
	amount, noNumber := task.Variables.Amount.Float64()
	switch {
	case err != nil || noNumber != nil:
		tell("failure", object{"errorMessage": fmt.Sprint(err, "; the amount: ", noNumber)})
	case amount > 1000:
		tell("bpmnError", object{"errorCode": "PAYMENT_ERROR", "errorMessage": fmt.Sprint(amount, ": over 1000")})
	case amount == 503 || amount == 502 && task.Retries == nil:
		tell("failure", object{"errorMessage": fmt.Sprint("the payment gateway answered ", amount)})
	default:
		if amount == 202 {
			tell("extendLock", object{"newDuration": 600_000, "variables": object{"paymentStatus": "pending"}})
			time.Sleep(must(time.ParseDuration(cmp.Or(os.Getenv("PENDING_SECONDS"), "5") + "s")))
		}
		tell("complete", object{"variables": object{"paymentStatus": task.Variables.Amount.String() + " " + task.Variables.Currency}})
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	connection := must(amqp.Dial(os.Getenv("AMQP_URL")))
	channel := must(connection.Channel())
	must(0, channel.Confirm(false))
	must(0, channel.Qos(10, 0, false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	tasks := must(channel.Consume(cmp.Or(os.Getenv("TASK_QUEUE"), "payment-processing"), "", false, false, false, false, nil))
	for stop.Err() == nil {
		select {
		case <-stop.Done():
		case task, open := <-tasks:
			if !open {
				log.Fatal("the queue or the connection is gone")
			}
			work(task.Body, func(outcome string, answer object) {
				echo := amqp.Publishing{CorrelationId: task.CorrelationId, DeliveryMode: amqp.Persistent,
					Headers: amqp.Table{"outcome": outcome}, Body: must(json.Marshal(answer))}
				confirm := must(channel.PublishWithDeferredConfirm("", task.ReplyTo, true, false, echo))
				if !confirm.Wait() || len(returned) > 0 { // a return comes before its confirm
					log.Fatal("no queue took the answer: the task stays on the broker")
				}
				fmt.Println(outcome, task.MessageId)
			})
			must(0, task.Ack(false))
		}
	}
	must(0, connection.Close())
}
