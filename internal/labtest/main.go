// The run as a whole: labs and test programs are made at once, then the tests are
// dealt out to the labs and the failures told once more at the end.

// Command labtest runs the tests of packages on several labs side by side. Most of
// their time is waiting, for a Ceph that is to forget a client or for a guest that
// boots; and a test looks at a whole lab for what it left behind, so no two can share
// one.
//
// Each test that `-test.list` names has a process of its own, on whichever lab is
// free. A name with a slash is a part of a test, which is run in place of the whole. A
// lab on which a test failed is made anew.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/lab"
)

// slowest is how many of the slowest tests are told.
const slowest = 15

func main() {
	labs := flag.Int("labs", 3, "on how many labs tests run side by side")
	hosts := flag.Int("hosts", 2, "how many hosts each lab has")
	only := flag.String("run", "", "run only tests whose name, with its package, matches this `REGEXP`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *labs, *hosts, *only, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "labtest:", err)
		os.Exit(1)
	}
}

// run runs the packages' tests and takes the labs down, whatever came of it.
func run(ctx context.Context, labs, hosts int, only string, packages []string) (err error) {
	began := time.Now()
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "lab-")
	if err != nil {
		return err
	}
	all := make([]*bench, labs)
	for i := range all {
		all[i] = &bench{name: fmt.Sprintf("lab %d", i+1), options: lab.Options{
			Dir: filepath.Join(dir, fmt.Sprint(i+1)), Hosts: hosts, Hurried: true,
		}}
	}
	defer func() {
		for _, b := range all {
			err = errors.Join(err, b.down())
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, "bin")), os.Remove(dir))
	}()
	var programs []program
	var buildErr error
	var building sync.WaitGroup
	building.Go(func() { programs, buildErr = build(ctx, filepath.Join(dir, "bin"), packages) })
	upErr := atOnce(all, func(b *bench) error { return b.up(ctx) })
	building.Wait()
	if err := errors.Join(buildErr, upErr); err != nil {
		return err
	}
	tests, err := list(ctx, programs, all[0].env())
	if err != nil {
		return err
	}
	tests = slices.DeleteFunc(tests, func(t test) bool { return !chosen.MatchString(t.String()) })
	if len(tests) == 0 {
		return errors.New("there is no such test")
	}
	fmt.Printf("labtest: %d tests on %d labs, begun after %s\n", len(tests), labs, since(began))
	results, err := deal(ctx, all, tests)
	return errors.Join(err, tell(results, len(tests), began))
}

// deal has each lab take the next test until there is none.
func deal(ctx context.Context, all []*bench, tests []test) (results []result, err error) {
	todo := queue{tests: slices.Clone(tests)}
	var mu sync.Mutex
	err = atOnce(all, func(b *bench) error {
		for t, ok := todo.next(); ok; t, ok = todo.next() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r := b.run(ctx, t)
			todo.over(t)
			mu.Lock()
			results = append(results, r)
			r.print(len(results), len(tests))
			mu.Unlock()
			if r.err == nil {
				continue
			}
			if err := errors.Join(b.down(), b.up(ctx)); err != nil {
				return err
			}
		}
		return nil
	})
	return results, err
}

// tell ends the log with what was slow and what failed. A test that did not run is a
// failure, too.
func tell(results []result, tests int, began time.Time) error {
	slices.SortFunc(results, func(a, b result) int { return int(b.took - a.took) })
	fmt.Println("\nlabtest: the slowest were")
	for _, r := range results[:min(slowest, len(results))] {
		fmt.Printf("%8.1f s  %s\n", r.took.Seconds(), r.test)
	}
	var failed []string
	for _, r := range results {
		if r.err != nil {
			failed = append(failed, fmt.Sprintf("\n  %s, on %s: %v", r.test, r.lab, r.err))
		}
	}
	if passed := len(results) - len(failed); passed < tests {
		return fmt.Errorf("%d of %d tests passed in %s; failed:%s", passed, tests, since(began), strings.Join(failed, ""))
	}
	fmt.Printf("\nlabtest: all %d tests passed in %s\n", tests, since(began))
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }

// atOnce works on all labs side by side.
func atOnce(all []*bench, work func(*bench) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, b := range all {
		wg.Go(func() { errs[i] = work(b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
