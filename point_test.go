// Points at which a workflow can be made to fail. They are found by running it, not
// listed.

package vmdisk

import (
	"fmt"
	"testing"
)

// point is a moment at which a workflow can fail: before or after its nth step of
// that name.
type point struct {
	step string
	nth  int
	when phase
}

func (p point) String() string {
	s := map[phase]string{before: "before ", after: "after "}[p.when] + p.step
	if p.nth > 1 {
		s += fmt.Sprintf(" %d", p.nth)
	}
	return s
}

// counter makes points of what the step runner tells.
func counter() func(step string, when phase) point {
	seen := map[string]int{}
	return func(step string, when phase) point {
		if when == before {
			seen[step]++
		}
		return point{step, seen[step], when}
	}
}

// points runs a workflow and notes where it could have failed.
func points(t *testing.T, h *Host, work func() error) []point {
	t.Helper()
	var all []point
	at := counter()
	h.fault = func(_, step string, when phase) error {
		all = append(all, at(step, when))
		return nil
	}
	defer func() { h.fault = nil }()
	if err := work(); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("the workflow has no steps")
	}
	return all
}

// failAt makes a workflow fail at a point.
func failAt(h *Host, p point, work func() error) error {
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == p {
			return errTest
		}
		return nil
	}
	defer func() { h.fault = nil }()
	return work()
}

// forgetUnusedSecrets makes the next secret step create one on hosts where no
// machine needs it.
func forgetUnusedSecrets(t *testing.T) {
	t.Helper()
	for i := range testLab.Hosts {
		vms, err := open(t, i).VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(vms) > 0 {
			return
		}
	}
	forgetSecrets(t)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
