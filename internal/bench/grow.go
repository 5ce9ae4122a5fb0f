// How the cost grows with what is in a pool.

package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// growth is what a command costs in pools of several sizes.
type growth struct {
	Name    string    `json:"name"`
	Disks   []int     `json:"disks"`
	Seconds []float64 `json:"seconds"` // medians
	PeakMiB []float64 `json:"peak_mib"`
	// Time and Memory are the exponents of the powers that fit best, from a hundred disks
	// on: below that a process's start is all there is to see.
	Time   float64 `json:"time_exponent"`
	Memory float64 `json:"memory_exponent"`
	// Flat is a cost that is not to depend on how many disks there are.
	Flat bool `json:"flat"`
}

// flatExponent is up to where a cost does not depend on how many disks there are: from
// 100 to 10,000 disks it is 1.6 times as high.
const flatExponent = 0.1

const (
	growRounds = 3
	fitFrom    = 100
)

// grow measures commands in pools that grow tenfold each time.
func (b *bench) grow(ctx context.Context, most int) ([]growth, error) {
	commands := []contender{
		{name: "boot", command: "$VMDISK boot grown --image guest --size 10G --memory 128M $PROGRESS"},
		{name: "info", command: "$VMDISK info grown"},
		{name: "rm", command: "$VMDISK rm grown $PROGRESS"},
		{name: "ls", command: "$VMDISK ls"},
		{name: "disk ls", command: "$VMDISK disk ls"},
		{name: "repair", command: "$VMDISK repair --dry-run"},
	}
	all := make([]growth, len(commands))
	has := 0
	for disks := 10; disks <= most; disks *= 10 {
		fmt.Fprintf(os.Stderr, "%d disks\n", disks)
		begin := time.Now()
		if _, err := b.shell(ctx, fmt.Sprintf("$VMDISK disk create --image guest --size 10G --count %d $PROGRESS", disks-has)); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "  %-24s %s\n", "made in", duration(time.Since(begin)))
		has = disks
		times, peaks := make([][]float64, len(commands)), make([]float64, len(commands))
		for range growRounds {
			for i, c := range commands {
				took, peak, err := b.once(ctx, c, 0)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
				times[i], peaks[i] = append(times[i], took.Seconds()), max(peaks[i], peak)
			}
		}
		for i, c := range commands {
			g := &all[i]
			g.Name, g.Flat = c.name, i < 3
			g.Disks, g.Seconds, g.PeakMiB = append(g.Disks, disks), append(g.Seconds, median(times[i])), append(g.PeakMiB, peaks[i])
			fmt.Fprintf(os.Stderr, "  %-24s %s, %.0f MiB\n", c.name, seconds(median(times[i])), peaks[i])
		}
	}
	for i := range all {
		all[i].fit()
	}
	return all, nil
}

func (g *growth) fit() {
	var x, y, z []float64
	for i, n := range g.Disks {
		if n >= fitFrom {
			x, y, z = append(x, float64(n)), append(y, g.Seconds[i]), append(z, g.PeakMiB[i])
		}
	}
	if len(x) > 1 {
		g.Time, g.Memory = exponent(x, y), exponent(x, z)
	}
}
