// The compiled parts of the benchmarks: a raw client for the ceiling, a starter of process
// instances, and a stand-in for the engine. Standard library only; judges nothing.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	verbs := map[string]func([]string){"raw": raw, "start": start, "engine": engine}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		log.Fatal("usage: native raw|start|engine [options]")
	}
	verbs[os.Args[1]](os.Args[2:])
}

// client keeps as many connections alive as it may have at once.
func client(connections int) *http.Client {
	return &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections},
	}
}

// ready tells whoever started us that the next thing is the work itself.
func ready() { fmt.Println("ready") }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
