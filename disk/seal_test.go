package disk

import (
	"bytes"
	"context"
	"errors"
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
			write := func(n Name, text string) {
				t.Helper()
				check(t, c.edit(t.Context(), Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) (err error) {
					for _, off := range written {
						_, writeErr := img.WriteAt([]byte(text), off)
						err = errors.Join(err, writeErr)
					}
					return err
				}))
			}
			check(t, c.FillDisk(t.Context(), Name{Pool: ours.Pool, Image: ours.Image}, src, nil))
			write(theirs, "data")
			same := func() {
				t.Helper()
				if diff := cmp.Diff(stored(t, c, theirs), stored(t, c, ours)); diff != "" {
					t.Errorf("librbd's image differs from ours:\n%s", diff)
				}
			}
			same()
			check(t, c.Seal(t.Context(), ours, c.ReserveSnapshot(ours.Pool)))
			check(t, errors.Join(c.CreateSnapshot(t.Context(), theirs), c.ProtectSnapshot(t.Context(), theirs)))
			same()
			written = written[1:3]
			write(ours, "more")
			write(theirs, "more")
			same()
			second := func(n Name) Name { n.Snap = "second"; return n }
			t.Cleanup(func() {
				check(t, errors.Join(c.RemoveSnapshot(context.Background(), second(ours)), c.RemoveSnapshot(context.Background(), second(theirs))))
			})
			check(t, c.TakeSnapshot(t.Context(), second(ours), c.ReserveSnapshot(ours.Pool)))
			check(t, c.CreateSnapshot(t.Context(), second(theirs)))
			same()
			write(ours, "last")
			write(theirs, "last")
			same()
			their, err := c.Snapshots(t.Context(), theirs)
			check(t, err)
			our, err := c.Snapshots(t.Context(), ours)
			check(t, err)
			if diff := cmp.Diff(their, our, cmpopts.EquateApproxTime(time.Minute)); diff != "" || len(our) != 2 {
				t.Errorf("librbd's snapshot differs from ours:\n%s", diff)
			}
			for n, want := range map[Name]string{ours: "data", second(ours): "more"} {
				check(t, c.view(t.Context(), n, func(img *rbd.Image) error {
					for _, off := range written {
						found := make([]byte, 4)
						if _, err := img.ReadAt(found, off); err != nil || string(found) != want {
							t.Errorf("%s reads %q at %d, %v", n, found, off, err)
						}
					}
					return nil
				}))
			}
		})
	}
}

// What is not plain, or has a snapshot, is librbd's to fill; and to seal, if it is not plain.
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
			check(t, c.Seal(t.Context(), sealed, c.ReserveSnapshot(n.Pool)))
			all, err := c.Snapshots(t.Context(), n)
			check(t, err)
			if last := all[len(all)-1]; len(all) != tc.snaps+1 || last.Name != ImageSnapshot || !last.Protected {
				t.Errorf("it has the snapshots %+v", all)
			}
		})
	}
}

// A number that is older than a snapshot is no use, nor is any if somebody has the image
// open: librbd tells them.
func TestTakeSnapshotOrdinary(t *testing.T) {
	c := open(t)
	n := Name{Pool: ImagePool, Image: "taken"}
	at := func(snap string) Name { return Name{Pool: n.Pool, Image: n.Image, Snap: snap} }
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return createImage(io, n, 20<<20, imageOrder) }))
	t.Cleanup(func() { check(t, c.RemoveImage(context.Background(), n)) })
	old := c.ReserveSnapshot(n.Pool)
	if _, err := old(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, c.CreateSnapshot(t.Context(), at("first")))
	check(t, c.TakeSnapshot(t.Context(), at("second"), old))
	check(t, c.edit(t.Context(), n, func(img *rbd.Image) error {
		_, err := img.WriteAt([]byte("data"), 0)
		check(t, err)
		check(t, c.TakeSnapshot(t.Context(), at("third"), c.ReserveSnapshot(n.Pool)))
		_, err = img.WriteAt([]byte("more"), 0)
		return err
	}))
	check(t, c.view(t.Context(), at("third"), func(img *rbd.Image) error {
		found := make([]byte, 4)
		if _, err := img.ReadAt(found, 0); err != nil || string(found) != "data" {
			t.Errorf("it reads %q, %v", found, err)
		}
		return nil
	}))
	if err := c.TakeSnapshot(t.Context(), at("first"), c.ReserveSnapshot(n.Pool)); !errors.Is(err, ErrExists) {
		t.Errorf("error is %v", err)
	}
	for _, snap := range []string{"first", "second", "third"} {
		check(t, c.RemoveSnapshot(t.Context(), at(snap)))
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
