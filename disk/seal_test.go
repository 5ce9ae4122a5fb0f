package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sparseSource is a file of size bytes with data at some places, the first and the last
// bytes among them.
func sparseSource(t *testing.T, size int64) (*Source, []int64) {
	t.Helper()
	at := []int64{0, size / 3, size / 2, size - 4}
	path := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(path)
	check(t, err)
	check(t, f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte("data"), off)
		check(t, err)
	}
	check(t, f.Close())
	src, err := OpenSource(path, SourceOptions{Format: formatRaw})
	check(t, err)
	t.Cleanup(func() { _ = src.Close() })
	return src, at
}

// An image that we fill and seal is, but for its name, its numbers and its age, what
// librbd makes of the same data.
func TestSealAsLibrbd(t *testing.T) {
	c := open(t)
	for _, size := range []int64{100<<20 + 512, 200 << 30} { // the map of the second is longer than one block of it
		t.Run(FormatSize(size), func(t *testing.T) {
			src, written := sparseSource(t, size)
			ours := Name{Pool: ImagePool, Image: "sealed-ours", Snap: ImageSnapshot}
			theirs := Name{Pool: ImagePool, Image: "sealed-theirs", Snap: ImageSnapshot}
			for _, n := range []Name{ours, theirs} {
				check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return createImage(io, n, size, imageOrder) }))
				t.Cleanup(func() { check(t, c.RemoveImage(context.Background(), n)) })
			}
			check(t, c.FillDisk(t.Context(), Name{Pool: ours.Pool, Image: ours.Image}, src, nil))
			check(t, c.edit(t.Context(), Name{Pool: theirs.Pool, Image: theirs.Image}, func(img *rbd.Image) (err error) {
				for _, off := range written {
					_, writeErr := img.WriteAt([]byte("data"), off)
					err = errors.Join(err, writeErr)
				}
				return err
			}))
			same := func() {
				t.Helper()
				if diff := cmp.Diff(stored(t, c, theirs), stored(t, c, ours)); diff != "" {
					t.Errorf("librbd's image differs from ours:\n%s", diff)
				}
			}
			same()
			check(t, c.Seal(t.Context(), ours, c.ReserveSnapshot(t.Context(), ours.Pool)))
			check(t, errors.Join(c.CreateSnapshot(t.Context(), theirs), c.ProtectSnapshot(t.Context(), theirs)))
			same()
			their, err := c.Snapshots(t.Context(), theirs)
			check(t, err)
			our, err := c.Snapshots(t.Context(), ours)
			check(t, err)
			if diff := cmp.Diff(their, our, cmpopts.EquateApproxTime(time.Minute)); diff != "" || len(our) != 1 {
				t.Errorf("librbd's snapshot differs from ours:\n%s", diff)
			}
			check(t, c.view(t.Context(), ours, func(img *rbd.Image) error {
				for _, off := range written {
					found := make([]byte, 4)
					if _, err := img.ReadAt(found, off); err != nil && !errors.Is(err, io.EOF) || string(found) != "data" {
						t.Errorf("at %d it reads %q, %v", off, found, err)
					}
				}
				return nil
			}))
		})
	}
}

// What is not plain, or has a snapshot, is librbd's to fill and to seal.
func TestSealNotPlain(t *testing.T) {
	c := open(t)
	src, written := sparseSource(t, 20<<20)
	for _, tc := range []struct {
		name     string
		features uint64
		snaps    int // it has already
	}{
		{"with a journal", rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureJournaling, 0},
		{"with a snapshot", plainFeatures, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := Name{Pool: ImagePool, Image: "sealed-ordinary"}
			check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
				opts := rbd.NewRbdImageOptions()
				defer opts.Destroy()
				check(t, opts.SetUint64(rbd.ImageOptionFeatures, tc.features))
				return rbd.CreateImage(io, n.Image, 20<<20, opts)
			}))
			t.Cleanup(func() { check(t, c.RemoveImage(context.Background(), n)) })
			for range tc.snaps {
				early := n
				early.Snap = "early"
				check(t, c.CreateSnapshot(t.Context(), early))
				t.Cleanup(func() { check(t, c.RemoveSnapshot(context.Background(), early)) })
			}
			check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
				b, err := openBlank(io, n.Image)
				check(t, err)
				if check(t, b.close()); b.plain {
					t.Error("it is taken for a plain one")
				}
				return nil
			}))
			check(t, c.FillDisk(t.Context(), n, src, nil))
			check(t, c.view(t.Context(), n, func(img *rbd.Image) error {
				found := make([]byte, 4)
				if _, err := img.ReadAt(found, written[1]); err != nil || string(found) != "data" {
					t.Errorf("it reads %q, %v", found, err)
				}
				return nil
			}))
			sealed := n
			sealed.Snap = ImageSnapshot
			check(t, c.Seal(t.Context(), sealed, func() (uint64, error) { return 0, errors.New("a number is asked for") }))
			all, err := c.Snapshots(t.Context(), n)
			check(t, err)
			if last := all[len(all)-1]; len(all) != tc.snaps+1 || last.Name != ImageSnapshot || !last.Protected {
				t.Errorf("it has the snapshots %+v", all)
			}
		})
	}
}

func TestEncodeObjectMap(t *testing.T) {
	for _, count := range []uint64{1, 4, 5, 16384, 16385, 100_000} {
		states := make([]byte, (count+3)/4)
		for i := range states {
			states[i] = byte(i) | 0x40
		}
		got, n, err := decodeObjectMap(encodeObjectMap(states, count))
		if err != nil || n != count || !bytes.Equal(states, got) {
			t.Errorf("of %d objects there are %d, %v", count, n, err)
		}
	}
}
