// Running programs and waiting for conditions: every wait in the lab has a
// deadline and ends with what was missing.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	pollEvery  = 20 * time.Millisecond
	pollAtMost = 250 * time.Millisecond
	// readyDeadline is how long any one condition may take to come true.
	readyDeadline = 90 * time.Second
	tailLines     = 15
)

// execution is a program to run to its end.
type execution struct {
	argv []string
	// env is added to the environment.
	env []string
	in  io.Reader
	// both has standard error added to what is returned.
	both bool
}

// run runs a program and returns its standard output. The error has the end of
// its standard error.
func run(ctx context.Context, argv ...string) ([]byte, error) {
	return runCommand(ctx, execution{argv: argv})
}

func runCommand(ctx context.Context, x execution) ([]byte, error) {
	path, err := program(x.argv[0])
	if err != nil {
		return nil, err
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, path, x.argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), x.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = x.in, &out, &errOut
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w%s", strings.Join(x.argv, " "), err, lastLines(errOut.String()))
	}
	if x.both {
		out.Write(errOut.Bytes())
	}
	return out.Bytes(), nil
}

// finalError ends a wait at once.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// final marks an error that waiting longer cannot cure.
func final(err error) error { return finalError{err} }

// until calls try until it returns nil, and returns its last error when ctx
// ends, the deadline passes, or the error is final.
func until(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyDeadline)
	defer cancel()
	began := time.Now()
	for {
		looked := time.Now()
		err := try()
		var end finalError
		if err == nil {
			return nil
		}
		if errors.As(err, &end) {
			return end.error
		}
		// What is dear to look at, or takes long to come, is looked at less often.
		nap := max(pollEvery, 2*time.Since(looked), min(pollAtMost, time.Since(began)/10))
		if stop := pauseFor(ctx, nap); stop != nil {
			return fmt.Errorf("%w (%w)", err, stop)
		}
	}
}

// pause waits for a moment, between two looks at a condition.
func pause(ctx context.Context) error { return pauseFor(ctx, pollEvery) }

func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// parallel runs steps side by side, ends the others when one fails, waits for
// all, and returns what failed first.
func parallel(ctx context.Context, steps ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, step := range steps {
		wg.Go(func() {
			if err := step(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// tail returns the last lines of a file, set off for an error text, or "".
func tail(path string) string {
	if path == "" {
		return ""
	}
	b, err := os.ReadFile(path)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return ""
	}
	return "\n  " + path + " ends:" + lastLines(string(b))
}

// lastLines returns the last lines of a text, each on a line of its own.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(s, "\r", "")), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	lines = lines[max(0, len(lines)-tailLines):]
	return "\n  | " + strings.Join(lines, "\n  | ")
}
