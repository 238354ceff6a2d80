package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// standIn answers what the bridge asks of an engine, and counts it.
type standIn struct {
	*store
	delay time.Duration
}

// engine serves the REST API at one address and the control of tasks and counts at another.
func engine(arguments []string) {
	options := flag.NewFlagSet("engine", flag.ExitOnError)
	listen := options.String("listen", "127.0.0.1:0", "address of the REST API, below /engine-rest")
	control := options.String("control", "127.0.0.1:0", "address of the control")
	delay := options.Duration("delay", 0, "how long every call about a task takes")
	_ = options.Parse(arguments)
	served := &standIn{newStore(), *delay}
	go served.freeExpired()
	go func() { log.Fatal(http.ListenAndServe(*control, served.control())) }()
	log.Fatal(http.ListenAndServe(*listen, http.StripPrefix("/engine-rest", http.HandlerFunc(served.serve))))
}

func (e *standIn) serve(to http.ResponseWriter, from *http.Request) {
	body := must(io.ReadAll(from.Body))
	parts := strings.Split(strings.Trim(from.URL.Path, "/"), "/")
	verb := parts[len(parts)-1]
	switch {
	case verb == "version":
		answer(to, 200, []byte(`{"version":"7.24.0"}`))
	case parts[0] != "external-task":
		refuse(to, 404, "no such path here")
	case verb == "fetchAndLock":
		e.fetchAndLock(to, from, body)
	case len(parts) == 1:
		e.bulk(to, from, body)
	case len(parts) == 2:
		e.one(to, parts[1])
	default:
		e.act(to, parts[1], verb, body)
	}
}

func (e *standIn) fetchAndLock(to http.ResponseWriter, from *http.Request, body []byte) {
	var asked request
	if !parsed(to, body, &asked) {
		return
	}
	e.count("fetchAndLock")
	time.Sleep(e.delay)
	tasks, count, wake := e.take(asked.WorkerID, asked.MaxTasks, asked.Topics)
	if count == 0 && asked.AsyncResponseTimeout > 0 {
		e.wait(1)
		defer e.wait(-1)
		end := time.After(time.Duration(asked.AsyncResponseTimeout) * time.Millisecond)
		for over := false; count == 0 && !over; {
			select {
			case <-wake:
			case <-end:
				over = true
			case <-from.Context().Done():
				return
			}
			if !over {
				tasks, count, wake = e.take(asked.WorkerID, asked.MaxTasks, asked.Topics)
			}
		}
	}
	answer(to, 200, tasks)
}

func (e *standIn) wait(change int) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.waiting += change
	e.most = max(e.most, e.waiting)
}

func (e *standIn) act(to http.ResponseWriter, id, verb string, body []byte) {
	asked := request{}
	if !parsed(to, body, &asked) {
		return
	}
	e.count(verb)
	time.Sleep(e.delay)
	status, why := 404, "no such path here"
	switch verb {
	case "complete", "bpmnError":
		status, why = e.settle(id, asked.WorkerID)
	case "failure":
		status, why = e.store.lock(id, asked.WorkerID, max(asked.RetryTimeout, 1), asked.Retries)
	case "extendLock":
		status, why = e.store.lock(id, asked.WorkerID, asked.NewDuration, nil)
	case "lock":
		status, why = e.store.lock(id, asked.WorkerID, asked.LockDuration, nil)
	}
	if status == 204 {
		to.WriteHeader(204)
	} else {
		refuse(to, status, why)
	}
}

func (e *standIn) one(to http.ResponseWriter, id string) {
	e.count("get")
	found := e.ask(query{ExternalTaskIDIn: []string{id}}, 0, 1)
	if len(found) == 2 {
		refuse(to, 404, "External task with id "+id+" does not exist")
		return
	}
	answer(to, 200, found[1:len(found)-1])
}

func (e *standIn) bulk(to http.ResponseWriter, from *http.Request, body []byte) {
	var asked query
	if !parsed(to, body, &asked) {
		return
	}
	e.count("query")
	first, _ := strconv.Atoi(from.URL.Query().Get("firstResult"))
	most, err := strconv.Atoi(from.URL.Query().Get("maxResults"))
	if err != nil {
		most = 1 << 30
	}
	answer(to, 200, e.ask(asked, first, most))
}

func (e *standIn) count(call string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.counts[call]++
}

func parsed(to http.ResponseWriter, body []byte, into any) bool {
	if len(body) == 0 {
		return true
	}
	if err := json.Unmarshal(body, into); err != nil {
		refuse(to, 400, err.Error())
		return false
	}
	return true
}

func answer(to http.ResponseWriter, status int, body []byte) {
	to.Header().Set("Content-Type", "application/json")
	to.WriteHeader(status)
	_, _ = to.Write(body)
}

func refuse(to http.ResponseWriter, status int, why string) {
	answer(to, status, must(json.Marshal(map[string]string{"type": "RestException", "message": why})))
}
