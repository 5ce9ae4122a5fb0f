package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// freshImage creates an image for src and removes it with the test.
func freshImage(t *testing.T, ioctx *rados.IOContext, order uint64, size int64) string {
	t.Helper()
	name := fmt.Sprintf("copy-%d-%x", os.Getpid(), time.Now().UnixNano())
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	if err := opts.SetUint64(rbd.ImageOptionOrder, order); err != nil {
		t.Fatal(err)
	}
	if err := rbd.CreateImage(ioctx, name, uint64(size), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rbd.RemoveImage(ioctx, name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// imageSum is the SHA-256 of n bytes of an image, and of its allocated bytes how
// many there are.
func imageSum(t *testing.T, ioctx *rados.IOContext, name string, n int64) (sum string, used uint64) {
	t.Helper()
	img, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(img, 0, n), make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	err = img.DiffIterate(rbd.DiffIterateConfig{
		Length: uint64(n),
		Callback: func(_, length uint64, exists int, _ interface{}) int {
			if exists != 0 {
				used += length
			}
			return 0
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil)), used
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestCopySource(t *testing.T) {
	ioctx := labImages(t)
	const size = 20<<20 + 12345
	raw := rawFixture(t, size)
	want := fileSum(t, raw)
	for _, tc := range []struct {
		name, path string
		order      uint64
	}{
		{"raw", raw, 23},
		{"raw, small objects", raw, 16},
		{"raw, large objects", raw, 25},
		{"qcow2", qcow2Fixture(t, raw), 23},
		{"qcow2, objects smaller than clusters", qcow2Fixture(t, raw, "-c", "-o", "cluster_size=2M"), 20},
		{"zlib", qcow2Fixture(t, raw, "-c"), 23},
		{"zstd", qcow2Fixture(t, raw, "-c", "-o", "compression_type=zstd"), 22},
		{"allocated zeros", qcow2Fixture(t, raw, "-S", "0"), 23},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, err := OpenSource(tc.path, SourceOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			name := freshImage(t, ioctx, tc.order, src.Size())
			var last int64
			var inside atomic.Int32
			err = copySource(t.Context(), ioctx, name, src, func(done, total int64) {
				if inside.Add(1) != 1 || done < last || total != src.Size() || done > total {
					t.Errorf("progress(%d, %d) after %d", done, total, last)
				}
				last = done
				inside.Add(-1)
			})
			if err != nil {
				t.Fatal(err)
			}
			if last != src.Size() {
				t.Errorf("last progress %d of %d", last, src.Size())
			}
			got, used := imageSum(t, ioctx, name, size)
			if got != want {
				t.Error("content differs from the source")
			}
			// Whole objects are counted: only small ones show that zeros were left out.
			if tc.order == 16 && used > 4<<20 {
				t.Errorf("%d bytes are allocated: zeros were written", used)
			}
		})
	}
}

func TestCopySourceRefuses(t *testing.T) {
	ioctx := labImages(t)
	src, err := OpenSource(rawFixture(t, 20<<20), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := copySource(t.Context(), ioctx, "no-such-image", src, nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("missing image: %v, want ENOENT", err)
	}
	if err := copySource(t.Context(), ioctx, freshImage(t, ioctx, 23, 1<<20), src, nil); err == nil {
		t.Error("an image that is too small was accepted")
	}
}

func TestCopySourceCancel(t *testing.T) {
	ioctx := labImages(t)
	src, err := OpenSource(rawFixture(t, 200<<20), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	err = copySource(ctx, ioctx, freshImage(t, ioctx, 20, src.Size()), src, func(_, _ int64) { cancel(cause) })
	if !errors.Is(err, cause) {
		t.Errorf("copySource = %v, want the cause of the cancellation", err)
	}
}

func TestCopySourceNoticesChange(t *testing.T) {
	ioctx := labImages(t)
	raw := rawFixture(t, 100<<20)
	for _, path := range []string{raw, qcow2Fixture(t, raw)} {
		src, err := OpenSource(path, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		once := false
		err = copySource(t.Context(), ioctx, freshImage(t, ioctx, 22, src.Size()), src, func(_, _ int64) {
			if once {
				return
			}
			once = true
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{0x55}, 500); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), "changed while being imported") {
			t.Errorf("%s: %v, want a change noticed", path, err)
		}
	}
}

// TestProve: what is proven is what the cluster holds.
func TestProve(t *testing.T) {
	ioctx := labImages(t)
	const size = 1 << 20
	img, err := openRawImage(ioctx, freshImage(t, ioctx, 20, size))
	if err != nil {
		t.Fatal(err)
	}
	defer img.close()
	b := newBuffer(size)
	defer b.free()
	for i := range b.b {
		b.b[i] = byte(i * i >> 8)
	}
	whole := []written{{span{0, size}, cephCRC(crcSeed, b.b)}}
	parts := []written{{span{4096, 8192}, cephCRC(crcSeed, b.b[4096:12288])}, {span{500_000, 77}, cephCRC(crcSeed, b.b[500_000:500_077])}}
	if err := img.prove(0, whole); !errors.Is(err, errNotStored) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("before the write: %v, want errNotStored and ENOENT", err)
	}
	if err := img.write(b, 0, []span{{0, size}}); err != nil {
		t.Fatal(err)
	}
	for _, ws := range [][]written{whole, parts} {
		if err := img.prove(0, ws); err != nil {
			t.Error(err)
		}
	}
	// One flipped bit behind our back.
	if err := ioctx.Write(img.blockName+".0000000000000000", []byte{b.b[5000] ^ 1}, 5000); err != nil {
		t.Fatal(err)
	}
	for _, ws := range [][]written{whole, parts} {
		if err := img.prove(0, ws); !errors.Is(err, errNotStored) {
			t.Errorf("after a flipped bit: %v, want errNotStored", err)
		}
	}
}

// TestCopySourceMemory: memory is bounded by the chunks in flight and not by the
// size of the disk.
func TestCopySourceMemory(t *testing.T) {
	ioctx := labImages(t)
	path := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 32<<20)
	for i := range block {
		block[i] = byte(i*7 + i>>9)
	}
	const size = 20 << 30
	for i := range int64(16) {
		if _, err := f.WriteAt(block, i*size/16); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(path, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	clear(block)
	debug.FreeOSMemory()
	before, most := resident(t), 0
	err = copySource(t.Context(), ioctx, freshImage(t, ioctx, 23, size), src, func(_, _ int64) {
		most = max(most, resident(t))
	})
	if err != nil {
		t.Fatal(err)
	}
	if mib := (most - before) >> 10; mib > 150 {
		t.Errorf("the copy needed %d MiB", mib)
	}
}

// resident is the memory that the process has now, in KiB.
func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Error(err)
		return 0
	}
	var kib int
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Error(err)
	}
	return kib
}
