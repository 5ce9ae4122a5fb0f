// The figures of a migration, in a line of 80 columns.

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk"
)

// migrationLine is "81 %  208 of 256 MiB  112 MiB/s  dirty 3 MiB/s  0.4 s left". The
// percentage is of the memory that was there once, and does not fall when the guest
// writes some of it anew; then what is to be sent is told instead of what is there.
func migrationLine(e vmdisk.Event) string {
	p := e.Migration
	if p == nil {
		return fmt.Sprintf(" %3d %%  %s", percentOf(e), portion(e.Bytes, e.Total))
	}
	s := fmt.Sprintf(" %3d %%", percentOf(e))
	if there := p.Total - p.Remaining; there < e.Bytes {
		s += "  " + brief(p.Remaining) + " to go"
	} else {
		s += "  " + portion(there, p.Total)
	}
	if p.Rate > 0 {
		s += "  " + brief(p.Rate) + "/s"
	}
	if p.Dirty > 0 {
		s += "  dirty " + brief(p.Dirty) + "/s"
	}
	if p.Left > 0 {
		s += "  " + strings.TrimSpace(duration(p.Left)) + " left"
	}
	return s
}

// percentOf is of memory that was there once.
func percentOf(e vmdisk.Event) int {
	if e.Total <= 0 {
		return 0
	}
	return min(int(100*e.Bytes/e.Total), 99) // it is not over before it is
}

// phaseOf is what a step is at.
func phaseOf(e vmdisk.Event) string {
	if e.Migration == nil || e.Migration.Phase == "" {
		return e.Step
	}
	return string(e.Migration.Phase)
}

// brief is a size of at most four digits.
func brief(bytes int64) string {
	size, unit := scale(bytes)
	return digits(bytes, size) + " " + unit
}

// portion is "208 of 256 MiB", in the unit of the whole.
func portion(part, whole int64) string {
	size, unit := scale(whole)
	return fmt.Sprintf("%s of %s %s", digits(part, size), digits(whole, size), unit)
}

// scale is the largest binary unit that leaves a number of bytes above one of it.
func scale(bytes int64) (size int64, unit string) {
	size = 1
	for _, unit = range []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"} {
		if bytes < 1024*size {
			break
		}
		size *= 1024
	}
	return size, unit
}

func digits(bytes, size int64) string {
	if v := float64(bytes) / float64(size); v < 9.95 && bytes%size != 0 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", float64(bytes)/float64(size))
}

// plainEvery is how often the progress of a migration, or of a filling, is told where nothing can be drawn.
const plainEvery = 10 * time.Second

// plainMigrations says when another line is due of each: not of one that is over soon.
type plainMigrations map[string]time.Duration

func (told plainMigrations) due(e vmdisk.Event) bool {
	elapsed := e.Elapsed
	switch {
	case e.Migration != nil:
		elapsed = e.Migration.Elapsed
	case e.Op != "fill": // which takes as long as there is data, too
		return false
	}
	if elapsed < told[e.Object]+plainEvery {
		return false
	}
	told[e.Object] = elapsed
	return true
}
