package disk

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/google/uuid"
)

// scratch is an image of 64 MiB with objects of 1 MiB that is removed, with its
// snapshots, when the test ends.
func scratch(t testing.TB, c *Cluster) Name {
	t.Helper()
	n := Name{Pool: VolumePool, Image: "scratch-" + uuid.NewString()}
	io, err := c.openPool(n.Pool)
	if err != nil {
		t.Fatal(err)
	}
	defer io.Destroy()
	if err := createImage(io, n, 64<<20, 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, c, n) })
	return n
}

func discard(t testing.TB, c *Cluster, n Name) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	snaps, err := c.Snapshots(ctx, n)
	for _, s := range snaps {
		at := n
		at.Snap = s.Name
		err = errors.Join(err, c.RemoveSnapshot(ctx, at))
	}
	if err := errors.Join(err, ignore(c.remove(ctx, n), ErrNotFound)); err != nil && !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// put writes one byte over and over to the whole image.
func put(t testing.TB, c *Cluster, n Name, b byte) {
	t.Helper()
	err := c.edit(t.Context(), n, func(img *rbd.Image) error {
		data := bytes.Repeat([]byte{b}, 1<<20)
		for off := int64(0); off < 64<<20; off += 1 << 20 {
			if _, err := img.WriteAt(data, off); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// holds says whether an image is full of one byte.
func holds(t testing.TB, c *Cluster, n Name, b byte) bool {
	t.Helper()
	same := true
	err := c.view(t.Context(), n, func(img *rbd.Image) error {
		data := make([]byte, 64<<20)
		_, err := img.ReadAt(data, 0)
		same = bytes.Count(data, []byte{b}) == len(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return same
}

func TestSnapshot(t *testing.T) {
	c := open(t)
	n := scratch(t, c)
	put(t, c, n, 'a')
	at := n
	at.Snap = "first"
	check := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("error is %v, want %v", err, want)
		}
	}
	check(c.CreateSnapshot(t.Context(), at), nil)
	check(c.CreateSnapshot(t.Context(), at), ErrExists)
	check(c.ProtectSnapshot(t.Context(), at), nil)
	check(c.ProtectSnapshot(t.Context(), at), nil)

	clone := Name{Pool: n.Pool, Image: n.Image + "-clone"}
	check(c.Clone(t.Context(), at, 0, clone), nil)
	t.Cleanup(func() { discard(t, c, clone) })
	all, err := c.Snapshots(t.Context(), n)
	check(err, nil)
	if len(all) != 1 || all[0].Name != "first" || !all[0].Protected || all[0].Size != 64<<20 ||
		time.Since(all[0].Created).Abs() > time.Hour || !slices.Equal(all[0].Clones, []string{clone.String()}) {
		t.Errorf("snapshots are %+v", all)
	}
	err = c.RemoveSnapshot(t.Context(), at)
	check(err, ErrHasClones)
	var e *Error
	if !errors.As(err, &e) || !slices.Equal(e.Holders, []string{clone.String()}) {
		t.Errorf("%v does not name the clone", err)
	}

	put(t, c, n, 'b')
	if !holds(t, c, n, 'b') {
		t.Fatal("what was written is not there")
	}
	err = c.edit(t.Context(), n, func(*rbd.Image) error { return c.Rollback(t.Context(), at, nil) })
	check(err, ErrInUse)
	last := int64(0)
	check(c.Rollback(t.Context(), at, func(done, total int64) { last = max(last, done*100/total) }), nil)
	if !holds(t, c, n, 'a') || last < 90 {
		t.Errorf("rolled back to %d %%, but not to what was there", last)
	}

	last = 0
	check(c.Flatten(t.Context(), clone, func(done, total int64) { last = max(last, done*100/total) }), nil)
	if from, err := c.Parent(t.Context(), clone); err != nil || from != (Name{}) || last < 90 || !holds(t, c, clone, 'a') {
		t.Errorf("after flatten (%d %%) the parent is %v, %v", last, from, err)
	}
	check(c.Flatten(t.Context(), clone, nil), ErrInvalid)
	check(c.RemoveSnapshot(t.Context(), at), nil)
	check(c.RemoveSnapshot(t.Context(), at), ErrNotFound)
	check(c.Rollback(t.Context(), at, nil), ErrNotFound)
}

func TestFlattenIsCancelled(t *testing.T) {
	c := open(t)
	n := scratch(t, c)
	put(t, c, n, 'a')
	at := n
	at.Snap = "base"
	clone := Name{Pool: n.Pool, Image: n.Image + "-clone"}
	if err := errors.Join(c.CreateSnapshot(t.Context(), at), c.ProtectSnapshot(t.Context(), at),
		c.Clone(t.Context(), at, 0, clone)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, c, clone) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := c.Flatten(ctx, clone, func(done, _ int64) {
		if done >= 4 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	if from, err := c.Parent(t.Context(), clone); err != nil || from != at {
		t.Errorf("parent is %v, %v", from, err)
	}
	if !holds(t, c, clone, 'a') {
		t.Error("the clone has other content")
	}
}

func TestTrash(t *testing.T) {
	c := open(t)
	n := scratch(t, c)
	put(t, c, n, 'a')
	err := c.edit(t.Context(), n, func(*rbd.Image) error { return c.MoveToTrash(t.Context(), n, time.Hour) })
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("error is %v", err)
	}
	if err := c.MoveToTrash(t.Context(), n, time.Hour); err != nil {
		t.Fatal(err)
	}
	entry, err := c.InTrash(t.Context(), n)
	if err != nil || entry.Expires.Sub(entry.Deleted) < 59*time.Minute {
		t.Fatalf("in the trash is %+v, %v", entry, err)
	}
	if err := c.PurgeTrash(t.Context(), entry, false); !errors.Is(err, ErrPermission) {
		t.Errorf("purged before its time: %v", err)
	}
	if err := c.RestoreTrash(t.Context(), n); err != nil || !holds(t, c, n, 'a') {
		t.Fatalf("restored: %v", err)
	}
	if err := c.RestoreTrash(t.Context(), n); !errors.Is(err, ErrNotFound) {
		t.Errorf("restored twice: %v", err)
	}
	if err := c.MoveToTrash(t.Context(), n, time.Hour); err != nil {
		t.Fatal(err)
	}
	if entry, err = c.InTrash(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := c.PurgeTrash(t.Context(), entry, true); err != nil {
		t.Fatal(err)
	}
}
