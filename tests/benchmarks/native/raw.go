package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"sync"
)

const fetched = 100

// raw drives the engine with the least possible code: fetch a hundred, complete them over so many
// connections, fetch again; ends when there is nothing left. Called as raw [options] ENGINE_URL TOPIC
func raw(arguments []string) {
	options := flag.NewFlagSet("raw", flag.ExitOnError)
	connections := options.Int("connections", 8, "connections that complete")
	ahead := options.Bool("ahead", false, "fetch the next hundred while the last are completed")
	_ = options.Parse(arguments)
	url, topic := options.Arg(0), options.Arg(1)
	web := client(*connections + 1)
	depth := 0
	if *ahead {
		depth = fetched
	}
	ids, open := make(chan string, depth), sync.WaitGroup{}
	for range *connections {
		go func() {
			for id := range ids {
				complete(web, url, id)
				open.Done()
			}
		}()
	}
	ready()
	for batch := fetch(web, url, topic); len(batch) > 0; batch = fetch(web, url, topic) {
		open.Add(len(batch))
		for _, id := range batch {
			ids <- id
		}
		if !*ahead {
			open.Wait()
		}
	}
	open.Wait()
}

func fetch(web *http.Client, url, topic string) []string {
	body := must(json.Marshal(map[string]any{"workerId": "raw", "maxTasks": fetched, "usePriority": true,
		"topics": []any{map[string]any{"topicName": topic, "lockDuration": 600_000}}}))
	var tasks []struct {
		ID        string
		Variables map[string]any
	}
	answer := post(web, url+"/external-task/fetchAndLock", body)
	if err := json.Unmarshal(answer, &tasks); err != nil {
		log.Fatal(err)
	}
	ids := make([]string, len(tasks))
	for place, task := range tasks {
		ids[place] = task.ID
	}
	return ids
}

var done = []byte(`{"workerId":"raw","variables":{"ok":{"value":true,"type":"Boolean"}}}`)

func complete(web *http.Client, url, id string) {
	post(web, url+"/external-task/"+id+"/complete", done)
}

func post(web *http.Client, url string, body []byte) []byte {
	answer := must(web.Post(url, "application/json", bytes.NewReader(body)))
	defer answer.Body.Close()
	content := must(io.ReadAll(answer.Body))
	if answer.StatusCode >= 300 {
		log.Fatalf("%s: %d %s", url, answer.StatusCode, content)
	}
	return content
}
