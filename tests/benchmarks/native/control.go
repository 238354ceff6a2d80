package main

import (
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// order asks for tasks: all at once, or at a rate a second; `bytes` is the size of one variable more.
type order struct {
	Topic string
	Count int
	Bytes int
	Rate  float64
}

// control makes tasks (POST /tasks), tells what was counted (GET /report) and forgets it (POST /reset).
func (e *standIn) control() http.Handler {
	paths := http.NewServeMux()
	paths.HandleFunc("POST /tasks", func(to http.ResponseWriter, from *http.Request) {
		var asked order
		if !parsed(to, must(io.ReadAll(from.Body)), &asked) {
			return
		}
		if asked.Rate > 0 {
			go e.trickle(asked)
		} else {
			e.create(asked.Topic, asked.Count, variables(asked.Bytes))
		}
		to.WriteHeader(204)
	})
	paths.HandleFunc("GET /report", func(to http.ResponseWriter, _ *http.Request) { answer(to, 200, e.report()) })
	paths.HandleFunc("POST /reset", func(to http.ResponseWriter, _ *http.Request) {
		e.reset()
		to.WriteHeader(204)
	})
	return paths
}

func (e *standIn) trickle(asked order) {
	pause, content := time.Duration(float64(time.Second)/asked.Rate), variables(asked.Bytes)
	for range asked.Count {
		e.create(asked.Topic, 1, content)
		time.Sleep(pause)
	}
}

func (e *standIn) report() []byte {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return must(json.Marshal(map[string]any{
		"counts": e.counts, "open": len(e.tasks), "pollsWaiting": e.waiting, "mostPollsWaiting": e.most,
		"firstFetchMs": e.first, "lastCompleteMs": e.last, "renewals": e.renewals, "betweenRenewalsMs": e.between,
	}))
}

func (e *standIn) reset() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.counts, e.first, e.last, e.renewals, e.between, e.most = map[string]int{}, 0, 0, 0, 0, e.waiting
}
