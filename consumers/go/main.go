// Takes amount and currency, answers paymentStatus; the rules are in the README beside it.
package main

import (
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

type task struct {
	Retries   *int
	Variables struct {
		Amount   json.Number
		Currency *string
	}
}

func work(body []byte, tell func(string, object)) {
	var t task
	err := json.Unmarshal(body, &t)
	amount, wrong := t.Variables.Amount.Float64()
	currency := "EUR"
	if t.Variables.Currency != nil {
		currency = *t.Variables.Currency
	}
	switch {
	case err != nil || wrong != nil:
		tell("failure", object{"errorMessage": fmt.Sprint("amount is no number: ", err, wrong)})
	case amount > 1000:
		tell("bpmnError", object{"errorCode": "PAYMENT_ERROR", "errorMessage": fmt.Sprint(amount, ": over 1000")})
	case amount == 503 || amount == 502 && t.Retries == nil:
		tell("failure", object{"errorMessage": fmt.Sprint("the payment gateway answered ", amount)})
	case amount == 202:
		tell("extendLock", ...)
