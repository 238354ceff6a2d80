// The worker of the benchmarks: answers every task at once, with batched confirms and multiple
// acknowledgements, so that it takes as little CPU as a worker can. It judges nothing.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var answer = []byte(`{"ok":true}`)

// job is what every consumer is told.
type job struct {
	prefetch int
	pause    time.Duration
	tell     bool
}

func main() {
	names := flag.String("queues", "", "queues to consume, comma separated")
	consumers := flag.Int("consumers", 1, "consumers of each queue, each with its own connection")
	prefetch := flag.Int("prefetch", 200, "messages in hand")
	pause := flag.Duration("pause", 0, "how long one task takes")
	tell := flag.Bool("tell", false, "print of each task its queue, its receipt (ms since the epoch) and its body")
	flag.Parse()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	queues := strings.Split(*names, ",")
	given := job{*prefetch, *pause, *tell}
	url := os.Getenv("AMQP_URL")
	for _, queue := range queues {
		for !exists(url, queue) {
			time.Sleep(20 * time.Millisecond)
		}
	}
	var started sync.WaitGroup
	for range *consumers {
		connection := must(amqp.Dial(url))
		for _, queue := range queues {
			started.Add(1)
			go given.run(connection, queue, started.Done)
		}
	}
	started.Wait()
	fmt.Println("ready")
	<-stop
}

// exists looks for a queue; while one is being declared, a broker can answer with an internal error.
func exists(url, queue string) bool {
	connection := must(amqp.Dial(url))
	defer connection.Close()
	channel := must(connection.Channel())
	_, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	return err == nil
}

// run consumes until the process ends.
func (j job) run(connection *amqp.Connection, queue string, started func()) {
	channel := must(connection.Channel())
	must(0, channel.Confirm(false))
	must(0, channel.Qos(j.prefetch, 0, false))
	tasks := must(channel.Consume(queue, "", false, false, false, false, nil))
	started()
	for task := range tasks {
		j.answer(channel, queue, j.ready(task, tasks))
	}
	log.Fatalf("%s: the queue or the connection is gone", queue)
}

// ready gives the task and whatever else is here already.
func (j job) ready(task amqp.Delivery, tasks <-chan amqp.Delivery) []amqp.Delivery {
	batch := []amqp.Delivery{task}
	for len(batch) < max(1, j.prefetch/2) && j.pause == 0 {
		select {
		case next, open := <-tasks:
			if !open {
				return batch
			}
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

func (j job) answer(channel *amqp.Channel, queue string, batch []amqp.Delivery) {
	confirms := make([]*amqp.DeferredConfirmation, len(batch))
	for place, task := range batch {
		if j.tell {
			fmt.Printf("%s\t%.3f\t%s\n", queue, float64(time.Now().UnixMicro())/1000, task.Body)
		}
		time.Sleep(j.pause)
		echo := amqp.Publishing{CorrelationId: task.CorrelationId, DeliveryMode: amqp.Persistent, Body: answer}
		confirms[place] = must(channel.PublishWithDeferredConfirm("", task.ReplyTo, false, false, echo))
	}
	for _, confirm := range confirms {
		if !confirm.Wait() {
			log.Fatal("an answer was refused: its task stays on the broker")
		}
	}
	must(0, batch[len(batch)-1].Ack(true))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
