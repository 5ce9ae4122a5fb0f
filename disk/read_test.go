package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// readAll reads a whole source as the copy does, in chunks of n bytes.
func readAll(t testing.TB, s *Source, n int64) ([]byte, error) {
	t.Helper()
	r := s.newReader()
	defer r.close()
	all, buf := make([]byte, s.Size()), make([]byte, n)
	for off := int64(0); off < s.Size(); off += n {
		next, err := s.nextData(off)
		if err != nil {
			return nil, err
		}
		if next > off {
			if off = next - next%n; off >= s.Size() {
				break
			}
		}
		p := buf[:min(n, s.Size()-off)]
		for i := range p {
			p[i] = 0xee // what read leaves alone must not be taken for data
		}
		spans, err := r.read(p, off)
		if err != nil {
			return nil, err
		}
		for _, sp := range spans {
			copy(all[off+sp.off:], p[sp.off:sp.off+sp.n])
		}
	}
	return all, nil
}

func checkRead(t *testing.T, path string) {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain")
	command(t, "qemu-img", "convert", "-O", "raw", path, plain)
	want, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(path, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Size() > int64(len(want)) || int64(len(want))-s.Size() >= 512 {
		t.Fatalf("Size() = %d, qemu-img says %d", s.Size(), len(want))
	}
	for _, n := range []int64{8 << 20, 64 << 10} {
		got, err := readAll(t, s, n)
		if err != nil {
			t.Fatal(err)
		}
		// qemu-img rounds a raw up to whole sectors.
		if !bytes.Equal(got, want[:s.Size()]) {
			t.Errorf("chunks of %d: content differs from qemu-img's", n)
		}
	}
}

func TestReadEqualsQemu(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	odd := rawFixture(t, 20<<20+12345)
	t.Run("raw", func(t *testing.T) { checkRead(t, raw) })
	t.Run("raw odd size", func(t *testing.T) { checkRead(t, odd) })
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"v2", []string{"-o", "compat=0.10"}},
		{"v3", nil},
		{"cluster 512", []string{"-o", "cluster_size=512"}},
		{"cluster 4K", []string{"-o", "cluster_size=4K"}},
		{"cluster 2M", []string{"-o", "cluster_size=2M"}},
		{"zlib", []string{"-c"}},
		{"zlib v2", []string{"-c", "-o", "compat=0.10"}},
		{"zlib cluster 512", []string{"-c", "-o", "cluster_size=512"}},
		{"zlib cluster 2M", []string{"-c", "-o", "cluster_size=2M"}},
		{"zstd", []string{"-c", "-o", "compression_type=zstd"}},
		{"zstd cluster 2M", []string{"-c", "-o", "compression_type=zstd,cluster_size=2M"}},
		{"extended L2", []string{"-o", "extended_l2=on"}},
		{"extended L2 cluster 2M", []string{"-o", "extended_l2=on,cluster_size=2M"}},
		{"extended L2 zlib", []string{"-c", "-o", "extended_l2=on"}},
		{"lazy refcounts", []string{"-o", "lazy_refcounts=on"}},
		{"preallocated metadata", []string{"-o", "preallocation=metadata"}},
		{"preallocated falloc", []string{"-o", "preallocation=falloc"}},
		{"preallocated full", []string{"-S", "0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkRead(t, qcow2Fixture(t, raw, tc.args...))
			checkRead(t, qcow2Fixture(t, odd, tc.args...))
		})
	}
}

func TestReadAfterUse(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	for name, opts := range map[string]string{"v3": "compat=1.1", "extended L2": "extended_l2=on"} {
		t.Run(name, func(t *testing.T) {
			path := qcow2Fixture(t, raw, "-o", opts)
			command(t, "qemu-io", "-c", "write -z 1M 256k", "-c", "write -z -u 3M 1M", "-c", "discard 8M 64k", path)
			checkRead(t, path)
			// An internal snapshot keeps the old state: what counts is the new one.
			command(t, "qemu-img", "snapshot", "-c", "before", path)
			command(t, "qemu-io", "-c", "write -P 7 0 3000", "-c", "write -P 9 17M 6k", "-c", "write -z 17415k 1k", path)
			checkRead(t, path)
		})
	}
}

func TestReadDamagedData(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	for name, opts := range map[string]string{"zlib": "compression_type=zlib", "zstd": "compression_type=zstd"} {
		t.Run(name, func(t *testing.T) {
			path := qcow2Fixture(t, raw, "-c", "-o", opts)
			_, l2 := l2At(t, path)
			at := int64(word(t, path, l2) & (1<<54 - 1))
			s, err := OpenSource(patch(t, path, at, bytes.Repeat([]byte{0xff}, 16)...), SourceOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := readAll(t, s, 8<<20); !errors.Is(err, ErrBadSource) {
				t.Errorf("read = %v, want ErrBadSource", err)
			}
		})
	}
}

// TestReadAfterCut: tables that were good when judged must not lead anywhere
// when the file has changed since.
func TestReadAfterCut(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	for _, path := range []string{raw, qcow2Fixture(t, raw), qcow2Fixture(t, raw, "-c")} {
		s, err := OpenSource(path, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		command(t, "truncate", "-s", "70000", path)
		_, err = readAll(t, s, 8<<20)
		if err == nil {
			err = s.unchanged()
		}
		if !errors.Is(err, ErrBadSource) {
			t.Errorf("%s: %v, want ErrBadSource", path, err)
		}
	}
}

// FuzzJudge: whatever the bytes, judging and reading neither panic nor read
// outside the file nor more than its tables.
func FuzzJudge(f *testing.F) {
	raw := filepath.Join(f.TempDir(), "tiny")
	if err := os.WriteFile(raw, append(make([]byte, 4096), "data"...), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, args := range [][]string{
		{"-o", "cluster_size=512"}, {"-o", "cluster_size=512,compat=0.10"},
		{"-c", "-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=512,compression_type=zstd"},
		{"-o", "cluster_size=16k,extended_l2=on"},
	} {
		b, err := os.ReadFile(qcow2Fixture(f, raw, args...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const maxSize = 4 << 20
		c := &countingReader{r: bytes.NewReader(b), t: t, size: int64(len(b))}
		if len(b) >= 4 {
			copy(b, "QFI\xfb")
		}
		q := &qcow2{f: c, fileSize: int64(len(b))}
		err := q.judge(maxSize)
		if most := int64(maxSize/512*16 + 2<<20); c.read > most {
			t.Errorf("read %d bytes to judge %d, at most %d expected", c.read, len(b), most)
		}
		if err != nil {
			return
		}
		r := (&Source{qcow2: q, size: q.size, path: "fuzz"}).newReader()
		defer r.close()
		p := make([]byte, 1<<20)
		for off := int64(0); off < q.size; off += 1 << 20 {
			if _, err := r.read(p[:min(1<<20, q.size-off)], off); err != nil {
				return
			}
		}
	})
}

type countingReader struct {
	r          *bytes.Reader
	t          *testing.T
	size, read int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > c.size {
		c.t.Errorf("read at %d of a file of %d bytes", off, c.size)
	}
	n, err := c.r.ReadAt(p, off)
	c.read += int64(n)
	return n, err
}
