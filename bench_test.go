// What parts of vmdisk cost, in pairs that alternate, so that both meet the same machine.
// The figure is the ratio. What users would do instead is in internal/bench.

package vmdisk

import (
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// pair times two ways to do one thing, b.N times each, and reports their medians
// and the ratio of those. Cleaning after each is not timed.
func pair(b *testing.B, ours, theirs, clean func() error) {
	b.Helper()
	var a, t []time.Duration
	timed := func(f func() error) time.Duration {
		begin := time.Now()
		err := f()
		took := time.Since(begin)
		must(b, err)
		must(b, clean())
		return took
	}
	for i := range b.N {
		if i%2 == 0 {
			a = append(a, timed(ours))
			t = append(t, timed(theirs))
		} else {
			t = append(t, timed(theirs))
			a = append(a, timed(ours))
		}
	}
	slices.Sort(a)
	slices.Sort(t)
	mine, other := a[len(a)/2], t[len(t)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(mine.Microseconds())/1000, "ours-ms")
	b.ReportMetric(float64(other.Microseconds())/1000, "theirs-ms")
	b.ReportMetric(mine.Seconds()/other.Seconds(), "ratio")
}

// writeSparse makes a file of which every so many MiB one holds random data.
func writeSparse(path string, size, data int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const piece = 4 << 20
	for i := range data / piece {
		if _, err := io.CopyN(io.NewOffsetWriter(f, i*piece*size/data), rand.Reader, piece); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// buildCommand is vmdisk, built as the Makefile builds it.
func buildCommand(b testing.TB) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "vmdisk")
	if out, err := exec.Command("go", "build", "-o", path, "./cmd/vmdisk").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return path
}

// command is one on the lab. CEPH_ARGS keeps rbd out of the guests' folders.
func command(program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Env = append(append(os.Environ(), testLab.Env()...), "CEPH_ARGS=--log-file= --admin-socket=")
	return c
}

// peakMemory is the largest resident set of a process that ended, in MiB.
func peakMemory(s *os.ProcessState) float64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / 1024
}

// BenchmarkJournal compares a boot with one that is not written down.
func BenchmarkJournal(b *testing.B) {
	h := open(b, 0)
	ctx := b.Context()
	last := ""
	boot := func(unwritten bool) func() error {
		return func() error {
			h.unwritten = unwritten
			vm, err := h.Boot(ctx, name(b), BootOptions{Image: "guest", Size: 128 << 20, Memory: guestMemory})
			last = vm.UUID
			return err
		}
	}
	pair(b, boot(false), boot(true), func() error {
		_, err := h.Remove(ctx, last)
		return err
	})
}
