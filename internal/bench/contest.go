// One row: contenders that do the same work in turn.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// work is a row of the table.
type work struct {
	name  string
	ours  contender
	peers []peer
	// prepare makes what all of them need, and unprepare takes it away.
	prepare, unprepare string
	change             string // before each round
}

// peer is a contender, and how many times as fast as it vmdisk is to be.
type peer struct {
	contender
	least float64
}

// contender does the work, by a shell command. $ROUND is a number that no other
// contender has; units is how much of the work the command does, 0 is all of it.
type contender struct {
	name    string
	command string
	clean   string // not timed
	change  string // before it, and not timed
	units   float64
	rounds  int // at most so many; 0 is as many as asked for
}

// timeMark is how a contender that times itself says how many seconds it took.
const timeMark = "seconds="

// compete measures a row: in each round every contender once, beginning with another
// each time.
func (b *bench) compete(ctx context.Context, w work) (row, error) {
	fmt.Fprintf(os.Stderr, "%s\n", w.name)
	if _, err := b.shell(ctx, w.prepare); err != nil {
		return row{}, fmt.Errorf("prepare: %w", err)
	}
	all := []contender{w.ours}
	for _, p := range w.peers {
		all = append(all, p.contender)
	}
	results := make([]series, len(all))
	round := 0
	for i := range b.rounds {
		if _, err := b.shell(ctx, w.change); err != nil {
			return row{}, fmt.Errorf("change: %w", err)
		}
		for k := range all {
			k = (k + i) % len(all)
			c := all[k]
			if c.rounds > 0 && i >= c.rounds {
				continue
			}
			round++
			took, peak, err := b.once(ctx, c, round)
			if err != nil {
				return row{}, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "  %-24s %s\n", c.name, duration(took))
			results[k].Seconds = append(results[k].Seconds, took.Seconds())
			results[k].PeakMiB = max(results[k].PeakMiB, peak)
		}
	}
	if _, err := b.shell(ctx, w.unprepare); err != nil {
		return row{}, fmt.Errorf("unprepare: %w", err)
	}
	r := row{Name: w.name}
	for k := range all {
		results[k].Name = all[k].name
		if k > 0 {
			results[k].Least = w.peers[k-1].least
			results[k].against(results[0])
		}
		r.Series = append(r.Series, results[k])
	}
	return r, nil
}

// once measures a contender once.
func (b *bench) once(ctx context.Context, c contender, round int) (took time.Duration, peak float64, err error) {
	number := fmt.Sprintf("ROUND=%d", round)
	if _, err := b.shell(ctx, c.change, number); err != nil {
		return 0, 0, fmt.Errorf("change: %w", err)
	}
	begin := time.Now()
	out, err := b.shell(ctx, c.command, number)
	took = time.Since(begin)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(out.text) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), timeMark); ok {
			seconds, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return 0, 0, err
			}
			took = time.Duration(seconds * float64(time.Second))
		}
	}
	if c.units > 0 {
		took = time.Duration(float64(took) / c.units)
	}
	if _, err := b.shell(ctx, c.clean, number); err != nil {
		return 0, 0, fmt.Errorf("clean: %w", err)
	}
	return took, out.peak, nil
}

// output is what a command printed, and the most memory that it, or one that it
// started, had, in MiB.
type output struct {
	text string
	peak float64
}

// shell runs a command on the lab. Its shell is replaced by the command where it can be.
func (b *bench) shell(ctx context.Context, command string, env ...string) (output, error) {
	if command == "" {
		return output{}, nil
	}
	var errOut, out bytes.Buffer
	c := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
	c.Env = slices.Concat(os.Environ(), b.lab.Env(), b.env(), env)
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return output{}, fmt.Errorf("%s: %w\n%s", command, err, errOut.String())
	}
	o := output{text: out.String()}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.peak = float64(usage.Maxrss) / 1024
	}
	return o, nil
}

// env is what the commands are written with. CEPH_ARGS keeps rbd out of the guests'
// folders.
func (b *bench) env() []string {
	return []string{"VMDISK=" + b.vmdisk, "FLOOR=" + b.self + " floor", "DIR=" + b.dir, "RBD=rbd --id cinder",
		"CEPH_ARGS=--log-file= --admin-socket=", "PROGRESS=--no-progress", "LC_ALL=C", "GUEST=" + b.lab.Guest}
}
