package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
)

// What qcow2File writes, qemu-img finds whole and equal to the raw file that it was
// written from, whatever the size, the holes, and the pieces that it came in.
func TestQcow2FileEqualsRaw(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		size int64
		data []span
	}{
		{1, []span{{0, 1}}},
		{512, nil},
		{1000, []span{{0, 1000}}},
		{64 << 10, []span{{0, 64 << 10}}},
		{64<<10 + 1, []span{{64 << 10, 1}}},
		{10 << 20, []span{{0, 3 << 20}, {5<<20 + 64<<10, 128 << 10}, {10<<20 - 64<<10, 64 << 10}}},
		// Across the ends of what one L2 table leads to, and a part without any data.
		{2*gib + 12345, []span{{512<<20 - 1<<20, 2 << 20}, {1536<<20 - 64<<10, 192 << 10}, {2*gib + 0, 12345}}},
		{1 << 40, []span{{1<<40 - 64<<10, 64 << 10}}},
	} {
		t.Run(fmt.Sprintf("%d", test.size), func(t *testing.T) {
			dir := t.TempDir()
			raw, out := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
			r, err := os.Create(raw)
			check(t, err)
			defer r.Close()
			check(t, r.Truncate(test.size))
			f, err := os.Create(out)
			check(t, err)
			defer f.Close()
			q := newQcow2File(f, test.size)
			random := rand.New(rand.NewPCG(1, 2))
			buf := make([]byte, maxChunk)
			for _, s := range test.data {
				for off := s.off; off < s.off+s.n; off += maxChunk {
					p := buf[:min(maxChunk, s.off+s.n-off)]
					fill(random, p)
					check(t, q.write(p, off))
					_, err := r.WriteAt(p, off)
					check(t, err)
				}
			}
			check(t, q.end())
			command(t, "qemu-img", "check", "-q", out)
			command(t, "qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, out)
			src, err := OpenSource(out, SourceOptions{}) // ours finds it whole, too
			check(t, err)
			src.Close()
		})
	}
}

// A file with more clusters than one block counts: those that are skipped here are
// leaked, and nothing is broken.
func TestQcow2FileCountsManyClusters(t *testing.T) {
	out := filepath.Join(t.TempDir(), "qcow2")
	f, err := os.Create(out)
	check(t, err)
	defer f.Close()
	q := newQcow2File(f, 1<<30)
	const leaked = 3*perRefBlock + 17
	q.next += leaked
	check(t, q.write([]byte("data"), 0))
	check(t, q.end())
	text, err := osexec.Command("qemu-img", "check", "--output=json", out).Output()
	var exit *osexec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 { // nothing but leaks
		t.Fatalf("%v: %s", err, text)
	}
	var found struct {
		Leaks       int
		Corruptions int
	}
	check(t, json.Unmarshal(text, &found))
	if found.Leaks != leaked || found.Corruptions != 0 {
		t.Errorf("%+v, not %d leaks", found, leaked)
	}
}

// fill leaves some clusters of p zeros.
func fill(random *rand.Rand, p []byte) {
	for i := 0; i < len(p); i += writeCluster {
		b := byte(random.IntN(4))
		copy(p[i:], bytes.Repeat([]byte{b}, min(writeCluster, len(p)-i)))
	}
	p[0], p[len(p)-1] = 1, 1
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
