package main

import (
	"slices"
	"testing"
)

func TestQueue(t *testing.T) {
	var q queue
	for _, name := range []string{"TestMigrate", "TestInterrupted/migrate", "TestBoot"} {
		q.tests = append(q.tests, test{name: name})
	}
	var got []string
	take := func() (taken test) {
		taken, ok := q.next()
		if ok {
			got = append(got, taken.name)
		}
		return taken
	}
	first := take()
	take() // not the second migration
	take() // nor now
	q.over(first)
	take()
	if want := []string{"TestMigrate", "TestBoot", "TestInterrupted/migrate"}; !slices.Equal(got, want) {
		t.Errorf("taken were %q, want %q", got, want)
	}
}

func TestPattern(t *testing.T) {
	one := test{program{pkg: "github.com/vmdisk/vmdisk/disk"}, "TestInterrupted/a.b c"}
	if got, want := one.pattern(), `^TestInterrupted$/^a\.b c$`; got != want {
		t.Errorf("pattern is %s, want %s", got, want)
	}
	if got, want := one.String(), "disk.TestInterrupted/a.b c"; got != want {
		t.Errorf("name is %s, want %s", got, want)
	}
	for out, want := range map[string]bool{
		"    --- PASS: TestInterrupted/a.b_c (0.10s)\n": true,
		"--- PASS: TestInterrupted (0.10s)\nPASS\n":     false,
	} {
		if one.ran(out) != want {
			t.Errorf("it ran: %v, of %q", !want, out)
		}
	}
}
