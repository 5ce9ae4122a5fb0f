// The run as a whole: a lab is made, every row of the table is measured on it, and what
// came of it is written down.

// Command bench measures vmdisk beside what a user would pick instead: on one lab, in
// turn, several rounds, so that all meet the same machine. What counts is the ratio.
//
// Each contender is a process, from its start to its end; Nova's and Glance's libraries,
// which live in a service, time themselves. The floor is a process, too: the calls into
// go-ceph and libvirt that the work comes down to, with nothing around them.
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
	"syscall"
	"time"

	"github.com/vmdisk/vmdisk/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "floor" {
		return floor(args[1:])
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "how often each contender is measured")
	only := flags.String("run", "", "measure only work whose name matches this `REGEXP`")
	most := flags.Int("most", 10000, "how many disks a pool is to have at last, to see how the cost grows; 0 leaves that out")
	out := flags.String("out", "", "write bench.json, BENCHMARKS.md and the plots to this `FOLDER`; without, print only")
	compare := flags.Bool("compare", false, "compare two bench.json: OLD NEW")
	command := flags.String("vmdisk", "bin/vmdisk", "the `COMMAND` that is measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *compare {
		if flags.NArg() != 2 {
			return errors.New("usage: bench -compare OLD NEW, two files as -out writes them")
		}
		return compareFiles(os.Stdout, flags.Arg(0), flags.Arg(1))
	}
	chosen, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	b, err := begin(ctx, *command, *rounds)
	if err != nil {
		return err
	}
	report, err := b.measure(ctx, chosen, *most)
	if err = errors.Join(err, b.end()); err != nil {
		return err
	}
	report.print(os.Stdout)
	if *out != "" {
		err = report.write(*out)
	}
	return errors.Join(err, report.missed())
}

// bench is a run.
type bench struct {
	lab    *lab.Lab
	dir    string // for files that are measured with
	vmdisk string // the command
	self   string // this one, for the floor
	rounds int
	began  time.Time
}

// begin makes a lab of its own: one that keeps its data as a cluster does, and not in
// memory.
func begin(ctx context.Context, command string, rounds int) (*bench, error) {
	b := &bench{rounds: rounds, began: time.Now()}
	var err error
	if b.vmdisk, err = filepath.Abs(command); err != nil {
		return nil, err
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "bench-"); err != nil {
		return nil, err
	}
	if b.lab, err = lab.Up(ctx, lab.Options{Dir: filepath.Join(b.dir, "lab")}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

// end takes the lab down, whatever came of the run.
func (b *bench) end() error {
	return errors.Join(b.lab.Down(context.Background()), os.RemoveAll(b.dir))
}

// measure measures the rows that are chosen, and how the cost grows.
func (b *bench) measure(ctx context.Context, chosen *regexp.Regexp, most int) (*report, error) {
	if err := b.writePeers(); err != nil {
		return nil, err
	}
	if _, err := b.shell(ctx, setUp); err != nil {
		return nil, err
	}
	r, err := b.newReport(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range b.works() {
		if !chosen.MatchString(w.name) {
			continue
		}
		row, err := b.compete(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	if most > 0 && chosen.MatchString("growth") {
		if r.Growth, err = b.grow(ctx, most); err != nil {
			return nil, fmt.Errorf("growth: %w", err)
		}
	}
	r.Took = time.Since(b.began).Round(time.Second).String()
	return r, nil
}
