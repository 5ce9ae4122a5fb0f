// A lab, and a test on it.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/lab"
)

// timeout is how long a test may take, and grace how long it may take to end when it
// is interrupted.
const (
	timeout = 20 * time.Minute
	grace   = 10 * time.Second
)

// bench is a lab for one test at a time.
type bench struct {
	name    string
	options lab.Options
	lab     *lab.Lab // nil if it is not up
}

func (b *bench) up(ctx context.Context) (err error) {
	b.lab, err = lab.Up(ctx, b.options)
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	return nil
}

// down is for the end, too: no signal stops it.
func (b *bench) down() error {
	if b.lab == nil {
		return nil
	}
	err := b.lab.Down(context.Background())
	b.lab = nil
	return err
}

// env is the environment of a test on it. A program with the race detector lingers for
// a second at its end, which is long if there are hundreds of them.
func (b *bench) env() []string {
	return append(append(os.Environ(), b.lab.Env()...), lab.EnvDir+"="+b.lab.Dir, "GORACE=atexit_sleep_ms=100")
}

// result is what came of a test.
type result struct {
	test
	lab  string
	took time.Duration
	out  string
	err  error
}

func (b *bench) run(ctx context.Context, t test) result {
	began := time.Now()
	c := exec.CommandContext(ctx, t.bin, "-test.v", "-test.timeout", timeout.String(), "-test.run", t.pattern())
	c.Dir, c.Env = t.dir, b.env()
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = grace
	out, err := c.CombinedOutput()
	if err == nil && !t.ran(string(out)) {
		err = errors.New("it did not run")
	}
	return result{t, b.name, time.Since(began), string(out), err}
}

// ran says whether a test's output has the test's end: a program that runs no test
// has not failed.
func (t test) ran(out string) bool {
	name := strings.ReplaceAll(t.name, " ", "_")
	return strings.Contains(out, "--- PASS: "+name+" (") || strings.Contains(out, "--- SKIP: "+name+" (")
}

// print prints a line, and what the test said if it failed.
func (r result) print(nth, of int) {
	verdict := "ok  "
	if r.err != nil {
		verdict = "FAIL"
		fmt.Printf("\n%s", r.out)
	}
	fmt.Printf("%s %4d/%d  %s %7.1f s  %s\n", verdict, nth, of, r.lab, r.took.Seconds(), r.test)
}
