package main

import (
	"fmt"
	"sort"
	"sync"
	"time"
)

const dateForm = "2006-01-02T15:04:05.000-0700"

// task is one external task; times are milliseconds since the epoch.
type task struct {
	id, topic, worker string
	variables         []byte
	created, locked   int64
	extended          int64
	retries           *int
}

// store holds the tasks and counts what happened to them. Guarded by its mutex.
type store struct {
	mutex    sync.Mutex
	tasks    map[string]*task
	free     map[string][]*task
	wake     chan struct{}
	number   int
	counts   map[string]int
	waiting  int
	most     int
	first    int64
	last     int64
	renewals int
	between  int64
}

func newStore() *store {
	return &store{tasks: map[string]*task{}, free: map[string][]*task{}, wake: make(chan struct{}), counts: map[string]int{}}
}

func now() int64 { return time.Now().UnixMilli() }

// create makes tasks of a topic and wakes the polls.
func (s *store) create(topic string, count int, variables []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for range count {
		s.number++
		id := fmt.Sprintf("%08x-57a4-11f0-8d1e-%012x", s.number, s.number*2654435761)
		made := &task{id: id, topic: topic, variables: variables, created: now()}
		s.tasks[id] = made
		s.free[topic] = append(s.free[topic], made)
	}
	s.counts["created"] += count
	close(s.wake)
	s.wake = make(chan struct{})
}

// take locks up to so many free tasks of the topics; when there is none, what to wait for.
func (s *store) take(worker string, most int, topics []topicRequest) ([]byte, int, chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	at, count := now(), 0
	body := []byte{'['}
	for _, asked := range topics {
		free := s.free[asked.TopicName]
		for len(free) > 0 && count < most {
			taken := free[0]
			free = free[1:]
			if s.tasks[taken.id] != taken {
				continue
			}
			taken.worker, taken.locked, taken.extended = worker, at+asked.LockDuration, 0
			if count > 0 {
				body = append(body, ',')
			}
			body = taken.write(body, true)
			count++
		}
		s.free[asked.TopicName] = free
	}
	s.counts["fetched"] += count
	if count > 0 && s.first == 0 {
		s.first = at
	}
	return append(body, ']'), count, s.wake
}

// freeExpired gives back what nobody completed or extended in time, until the process ends.
func (s *store) freeExpired() {
	for range time.Tick(time.Second) {
		s.mutex.Lock()
		at, lapsed := now(), 0
		for _, held := range s.tasks {
			if held.locked != 0 && held.locked < at {
				held.locked = 0
				s.free[held.topic] = append(s.free[held.topic], held)
				lapsed++
			}
		}
		if lapsed > 0 {
			s.counts["lapsed"] += lapsed
			close(s.wake)
			s.wake = make(chan struct{})
		}
		s.mutex.Unlock()
	}
}

// settle ends a task, or answers why it cannot.
func (s *store) settle(id, worker string) (int, string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.tasks[id]
	if found == nil {
		return 404, "External task with id " + id + " does not exist"
	}
	if found.worker != worker {
		return 400, fmt.Sprintf("External Task %s cannot be completed by worker '%s'. It is locked by worker '%s'.", id, worker, found.worker)
	}
	delete(s.tasks, id)
	s.last = now()
	s.counts["completed"]++
	return 204, ""
}

// lock sets a lock anew; `retries` is that of a failure, which frees the task after its pause.
func (s *store) lock(id, worker string, duration int64, retries *int) (int, string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.tasks[id]
	if found == nil {
		return 404, "External task with id " + id + " does not exist"
	}
	if found.worker != worker {
		return 400, fmt.Sprintf("The lock of the External Task %s cannot be extended by worker '%s'. It is locked by worker '%s'.", id, worker, found.worker)
	}
	at := now()
	if found.extended != 0 {
		s.renewals++
		s.between += at - found.extended
	}
	found.extended, found.locked = at, at+duration
	if retries != nil {
		found.retries = retries
	}
	return 204, ""
}

// ask gives the tasks of a bulk query, in order of lock expiration, as much as a page holds.
func (s *store) ask(asked query, from, most int) []byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var found []*task
	for _, id := range asked.ExternalTaskIDIn {
		if held := s.tasks[id]; held != nil {
			found = append(found, held)
		}
	}
	if asked.ExternalTaskIDIn == nil {
		after, before := milliseconds(asked.LockExpirationAfter), milliseconds(asked.LockExpirationBefore)
		for _, held := range s.tasks {
			if held.worker == asked.WorkerID && held.locked > after && held.locked < before {
				found = append(found, held)
			}
		}
		sort.Slice(found, func(a, b int) bool { return found[a].locked < found[b].locked })
	}
	found = found[min(from, len(found)):min(from+most, len(found))]
	body := []byte{'['}
	for place, held := range found {
		if place > 0 {
			body = append(body, ',')
		}
		body = held.write(body, false)
	}
	return append(body, ']')
}

func milliseconds(date string) int64 {
	if date == "" {
		return 0
	}
	return must(time.Parse(dateForm, date)).UnixMilli()
}
