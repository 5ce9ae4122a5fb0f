// In which order tests are dealt out, and which of them not side by side.

package main

import (
	"slices"
	"strings"
	"sync"
)

// queue is what is still to be run. Of the tests whose name speaks of a migration one
// runs at a time: on a busy machine a guest without KVM does not survive its live
// migration (see ARCHITECTURE.md).
type queue struct {
	mu      sync.Mutex
	tests   []test
	migrant bool // one is running
}

func (t test) migrates() bool { return strings.Contains(strings.ToLower(t.String()), "migrat") }

// next takes the first test that can run now. If there is none, what is left is for
// whoever runs a migration.
func (q *queue) next() (test, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.tests, func(t test) bool { return !q.migrant || !t.migrates() })
	if i < 0 {
		return test{}, false
	}
	t := q.tests[i]
	q.tests = slices.Delete(q.tests, i, i+1)
	q.migrant = q.migrant || t.migrates()
	return t, true
}

// over gives back what a test had for itself.
func (q *queue) over(t test) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.migrates() {
		q.migrant = false
	}
}
