package main

import (
	"flag"
	"sync"
	"time"
)

var amounts = []byte(`{"variables":{"amount":{"value":42,"type":"Integer"},"currency":{"value":"EUR","type":"String"}}}`)

// start begins so many instances of a process, each with two variables: over some connections as
// fast as it goes, or one by one at a rate.
func start(arguments []string) {
	options := flag.NewFlagSet("start", flag.ExitOnError)
	url := options.String("url", "", "base of the REST API")
	key := options.String("key", "", "key of the process")
	count := options.Int("count", 1, "how many")
	connections := options.Int("connections", 4, "how many at once")
	rate := options.Float64("rate", 0, "a second; 0: no limit")
	_ = options.Parse(arguments)
	web, begin := client(*connections), make(chan struct{})
	var open sync.WaitGroup
	for range *connections {
		open.Add(1)
		go func() {
			defer open.Done()
			for range begin {
				post(web, *url+"/process-definition/key/"+*key+"/start", amounts)
			}
		}()
	}
	ready()
	for range *count {
		begin <- struct{}{}
		if *rate > 0 {
			time.Sleep(time.Duration(float64(time.Second) / *rate))
		}
	}
	close(begin)
	open.Wait()
}
