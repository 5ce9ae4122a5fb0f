package vmdisk

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

// withImage opens an image with the library that others use.
func withImageOf(t testing.TB, n disk.Name, f func(*rbd.Image) error) {
	t.Helper()
	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(n.Pool)
		must(t, err)
		defer io.Destroy()
		img, err := rbd.OpenImage(io, n.Image, rbd.NoSnapshot)
		must(t, err)
		defer img.Close()
		must(t, f(img))
	})
}

// write puts a text at the beginning of a volume.
func write(t testing.TB, v disk.Volume, text string) {
	t.Helper()
	withImageOf(t, v.Name(), func(img *rbd.Image) error {
		_, err := img.WriteAt([]byte(text), 0)
		return err
	})
}

func reads(t testing.TB, v disk.Volume, want string) {
	t.Helper()
	withImageOf(t, v.Name(), func(img *rbd.Image) error {
		buf := make([]byte, len(want))
		if _, err := img.ReadAt(buf, 0); err != nil {
			return err
		}
		if string(buf) != want {
			t.Errorf("%s begins with %q, not %q", v.Name(), buf, want)
		}
		return nil
	})
}

// keepFor removes a volume when the test ends, if it is there.
func keepFor(t testing.TB, h *Host, ids ...string) {
	t.Cleanup(func() {
		for _, id := range slices.Backward(ids) {
			err := h.RemoveVolume(context.WithoutCancel(t.Context()), id)
			if err != nil && !errors.Is(err, disk.ErrNotFound) {
				t.Error(err)
			}
		}
	})
}

// cloned is a volume made from something, removed when the test ends.
func cloned(t testing.TB, h *Host, o CloneOptions) disk.Volume {
	t.Helper()
	v, err := h.CloneVolume(t.Context(), o)
	must(t, err)
	keepFor(t, h, v.ID)
	return v
}

func snapshotted(t testing.TB, h *Host, volume, id string) VolumeSnapshot {
	t.Helper()
	s, err := h.CreateVolumeSnapshot(t.Context(), volume, id)
	must(t, err)
	t.Cleanup(func() {
		err := h.RemoveVolumeSnapshot(context.WithoutCancel(t.Context()), volume+"@"+id)
		if err != nil && !errors.Is(err, disk.ErrNotFound) {
			t.Error(err)
		}
	})
	return s
}

// What a volume is made from, the names by which Cinder knows it, and that neither
// changes the other.
func TestVolumeFrom(t *testing.T) {
	h := open(t, 0)
	src := volume(t, h)
	write(t, src, "old")
	s := snapshotted(t, h, src.ID, "from")
	if s.Name != "snapshot-from" || s.ID != "from" || !s.Protected || s.Kind != disk.KindSnapshot || s.Size != disk.GiB {
		t.Errorf("snapshot is %+v", s)
	}
	for _, tt := range []struct {
		name   string
		o      CloneOptions
		parent string
		size   int64
		text   string
		object int64 // MiB
	}{
		{"image", CloneOptions{Image: "guest"}, "images/guest@snap", disk.GiB, "", 8},
		{"image, larger", CloneOptions{Image: "guest", Size: 2 * disk.GiB}, "images/guest@snap", 2 * disk.GiB, "", 8},
		{"image, flat", CloneOptions{Image: "guest", Flatten: true}, "", disk.GiB, "", 8},
		{"snapshot", CloneOptions{Snapshot: src.ID + "@from"}, "volumes/volume-" + src.ID + "@snapshot-from", disk.GiB, "old", 4},
		{"snapshot alone", CloneOptions{Snapshot: "snapshot-from", Size: 3 * disk.GiB}, "volumes/volume-" + src.ID + "@snapshot-from", 3 * disk.GiB, "old", 4},
		{"volume", CloneOptions{ID: "from-volume", Volume: src.ID}, "volumes/volume-" + src.ID + "@volume-from-volume.clone_snap", disk.GiB, "new", 4},
		{"volume, flat", CloneOptions{ID: "from-flat", Volume: src.ID, Flatten: true}, "", disk.GiB, "new", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(t, src, "new")
			was := stateNow(t)
			v := cloned(t, h, tt.o)
			want := disk.Volume{ID: v.ID, Pool: "volumes", Image: "volume-" + v.ID, Size: tt.size, Parent: tt.parent}
			if diff := cmp.Diff(want, v); diff != "" {
				t.Error(diff)
			}
			if tt.text != "" {
				write(t, src, "changed since")
				reads(t, v, tt.text)
			}
			d, err := h.Volume(t.Context(), v.ID)
			must(t, err)
			if d.ObjectSize != tt.object<<20 || !slices.Contains(d.Features, "layering") || (d.Depth == 1) != (tt.name == "volume") {
				t.Errorf("it is %+v", d)
			}
			all, err := h.Volumes(t.Context())
			must(t, err)
			if i := slices.IndexFunc(all, func(o disk.Volume) bool { return o.ID == v.ID }); i < 0 || cmp.Diff(want, all[i]) != "" {
				t.Errorf("listed is %+v", all)
			}
			must(t, h.RemoveVolume(t.Context(), v.ID))
			was.unchanged(t) // nothing stays on the source
		})
	}
}

// A chain of clones ends where it is as deep as it may get.
func TestCloneDepth(t *testing.T) {
	c := config(0)
	c.MaxCloneDepth = 2
	h, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	last := volume(t, h)
	write(t, last, "deep")
	for _, want := range []int{1, 2, 0, 1} {
		next := cloned(t, h, CloneOptions{Volume: last.ID})
		d, err := h.Volume(t.Context(), next.ID)
		must(t, err)
		if d.Depth != want || (d.Parent == "") != (want == 0) {
			t.Errorf("depth is %d under %q, want %d", d.Depth, d.Parent, want)
		}
		if snaps, err := h.VolumeSnapshots(t.Context(), last.ID); err != nil || (len(snaps) == 0) != (want == 0) {
			t.Errorf("on its source are %+v, %v", snaps, err)
		}
		reads(t, next, "deep")
		last = next
	}
	c.MaxCloneDepth = -1
	copies, err := Open(t.Context(), c)
	must(t, err)
	defer func() { must(t, copies.Close()) }()
	if v := cloned(t, copies, CloneOptions{Volume: last.ID}); v.Parent != "" {
		t.Errorf("a copy hangs on %s", v.Parent)
	}
}

// says whether an error is of a kind, has a text, and what to type next.
func refused(t *testing.T, err, kind error, text, next string) {
	t.Helper()
	var e *Error
	if !errors.Is(err, kind) || !errors.As(err, &e) || !strings.Contains(err.Error(), text) || !strings.Contains(e.Next, next) {
		t.Errorf("error is %v, want %v with %q and next %q: %+v", err, kind, text, next, e)
	}
}

func TestVolumeRefuses(t *testing.T) {
	h := open(t, 0)
	blank := importBlank(t, h, "refused")
	unprotected := importBlank(t, h, "unprotected")
	unprotect(t, unprotected)
	bare := disk.Name{Pool: "images", Image: "bare"}
	rbdCommand(t, "create", "--size", "8", bare.String())
	t.Cleanup(func() { rbdCommand(t, "rm", bare.String()) })
	v, other := volume(t, h), volume(t, h)
	snapshotted(t, h, v.ID, "two")
	snapshotted(t, h, other.ID, "two")
	trashed := volume(t, h)
	_, err := h.TrashVolume(t.Context(), trashed.ID, time.Hour)
	must(t, err)
	t.Cleanup(func() { _, _ = h.RestoreVolume(context.WithoutCancel(t.Context()), trashed.ID) })
	was := stateNow(t)
	for _, tt := range []struct {
		name string
		o    CloneOptions
		kind error
		text string
		next string
	}{
		{"no source", CloneOptions{}, disk.ErrInvalid, "one of", ""},
		{"two sources", CloneOptions{Image: "guest", Volume: v.ID}, disk.ErrInvalid, "one of", ""},
		{"no such image", CloneOptions{Image: "nothing"}, disk.ErrNotFound, "no image images/nothing", ""},
		{"image without snap", CloneOptions{Image: "bare"}, disk.ErrNotFound, `no snapshot "snap"`, ""},
		{"image unprotected", CloneOptions{Image: "unprotected"}, disk.ErrNotProtected, "", "rbd snap protect images/unprotected@snap"},
		{"image in another pool", CloneOptions{Image: "nopool/x"}, disk.ErrNotFound, "no such pool", ""},
		{"smaller", CloneOptions{Volume: v.ID, Size: -1}, disk.ErrInvalid, "smaller", ""},
		{"not whole GiB", CloneOptions{Image: blank.Image, Size: 512 << 20}, disk.ErrInvalid, "whole number of GiB", ""},
		{"exists", CloneOptions{ID: other.ID, Volume: v.ID}, disk.ErrExists, other.ID, ""},
		{"itself", CloneOptions{ID: v.ID, Volume: v.ID}, disk.ErrExists, v.ID, ""},
		{"odd ID", CloneOptions{ID: "a:b", Volume: v.ID}, disk.ErrInvalid, "':'", ""},
		{"odd source", CloneOptions{Volume: "a'b"}, disk.ErrInvalid, "", ""},
		{"no such volume", CloneOptions{Volume: "nothing"}, disk.ErrNotFound, "volume-nothing", ""},
		{"volume in the trash", CloneOptions{Volume: trashed.ID}, disk.ErrNotFound, "", "volume restore " + trashed.ID},
		{"an image as volume", CloneOptions{Volume: "images/guest"}, disk.ErrInvalid, "not a volume", ""},
		{"no such snapshot", CloneOptions{Snapshot: v.ID + "@nothing"}, disk.ErrNotFound, "no such snapshot of volume", ""},
		{"snapshot of a volume in the trash", CloneOptions{Snapshot: trashed.ID + "@x"}, disk.ErrNotFound, "", ""},
		{"snapshot nowhere", CloneOptions{Snapshot: "nothing"}, disk.ErrNotFound, "any volume", ""},
		{"snapshot of several", CloneOptions{Snapshot: "two"}, disk.ErrInvalid, "VOLUME@SNAP", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.CloneVolume(t.Context(), tt.o)
			refused(t, err, tt.kind, tt.text, tt.next)
			was.unchanged(t)
		})
	}
	t.Run("caps", func(t *testing.T) {
		c := config(0)
		c.Ceph.User = "glance"
		glance, err := Open(t.Context(), c)
		must(t, err)
		defer func() { must(t, glance.Close()) }()
		_, err = glance.CreateVolume(t.Context(), "", disk.GiB)
		refused(t, err, disk.ErrPermission, "client.glance needs the cap osd 'profile rbd pool=volumes'", "")
	})
	must(t, func() error { _, err := h.RestoreVolume(t.Context(), trashed.ID); return err }())
}

// Who is in the way of a removal is named, and what finishes it is said.
func TestRemoveVolumeRefuses(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	s := snapshotted(t, h, v.ID, "keep")
	err := h.RemoveVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrHasSnapshots, v.Name().String()+"@snapshot-keep", "volume snapshot rm "+v.ID+"@keep")

	c := cloned(t, h, CloneOptions{Snapshot: v.ID + "@keep"})
	err = h.RemoveVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrHasClones, c.Name().String(), "volume flatten "+c.ID)
	err = h.RemoveVolumeSnapshot(t.Context(), v.ID+"@"+s.Name)
	refused(t, err, disk.ErrHasClones, c.Name().String(), "volume flatten "+c.ID)
	if _, err = h.TrashVolume(t.Context(), v.ID, 0); !errors.Is(err, disk.ErrHasClones) {
		t.Errorf("trash: %v", err)
	}
	_, err = h.FlattenVolume(t.Context(), c.ID)
	must(t, err)
	_, err = h.FlattenVolume(t.Context(), c.ID)
	refused(t, err, disk.ErrInvalid, "depends on nothing", "")
	must(t, h.RemoveVolumeSnapshot(t.Context(), "keep"))

	withImageOf(t, v.Name(), func(*rbd.Image) error {
		was := stateNow(t)
		by, err := h.Volume(t.Context(), v.ID)
		must(t, err)
		if len(by.Watchers) != 1 {
			t.Fatalf("open by %v", by.Watchers)
		}
		addr := by.Watchers[0].Addr
		refused(t, h.RemoveVolume(t.Context(), v.ID), disk.ErrInUse, addr, "")
		_, err = h.TrashVolume(t.Context(), v.ID, 0)
		refused(t, err, disk.ErrInUse, addr, "")
		_, err = h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
		refused(t, err, disk.ErrInUse, addr, "")
		was.unchanged(t)
		return nil
	})
	// What backups left goes with the volume.
	rbdCommand(t, "snap", "create", v.Name().String()+"@backup.0a1b.snap.1700000000.5")
	err = h.RemoveVolumeSnapshot(t.Context(), v.ID+"@backup.0a1b.snap.1700000000.5")
	refused(t, err, disk.ErrInUse, "backup", "")
	must(t, h.RemoveVolume(t.Context(), v.ID))
	if err := h.RemoveVolume(t.Context(), v.ID); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
}

func TestVolumeTrash(t *testing.T) {
	h := open(t, 0)
	src := volume(t, h)
	was := stateNow(t)
	v := cloned(t, h, CloneOptions{ID: "trashed", Volume: src.ID})
	write(t, v, "kept")
	_, err := h.CreateVolumeSnapshot(t.Context(), v.ID, "along")
	must(t, err)

	in, err := h.TrashVolume(t.Context(), v.ID, time.Hour)
	must(t, err)
	all, err := h.TrashedVolumes(t.Context())
	must(t, err)
	if len(all) != 1 || all[0] != in || in.Image != v.Image || time.Until(in.Expires) < 50*time.Minute {
		t.Errorf("in the trash is %+v, moved %+v", all, in)
	}
	_, err = h.Volume(t.Context(), v.ID)
	refused(t, err, disk.ErrNotFound, v.Image, "volume restore "+v.ID)
	refused(t, h.RemoveVolume(t.Context(), src.ID), disk.ErrHasClones, "in the trash", "volume purge --force "+v.ID)
	_, err = h.PurgeVolume(t.Context(), v.ID, false)
	refused(t, err, disk.ErrPermission, "until", "purge --force "+v.ID)
	if purged, err := h.PurgeVolumes(t.Context()); err != nil || len(purged) != 0 {
		t.Errorf("purged %v, %v", purged, err)
	}

	taken, err := h.CreateVolume(t.Context(), v.ID, disk.GiB)
	must(t, err)
	_, err = h.RestoreVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrExists, "", "")
	must(t, h.RemoveVolume(t.Context(), taken.ID))

	back, err := h.RestoreVolume(t.Context(), v.ID)
	must(t, err)
	if diff := cmp.Diff(v, back); diff != "" {
		t.Error(diff)
	}
	reads(t, back, "kept")
	_, err = h.RestoreVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrNotFound, "not in the trash", "")

	_, err = h.TrashVolume(t.Context(), v.ID, time.Hour)
	must(t, err)
	_, err = h.PurgeVolume(t.Context(), v.ID, true)
	must(t, err)
	was.unchanged(t) // the snapshot that it hung on is gone, too
}

func TestRollback(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	write(t, v, "then")
	snapshotted(t, h, v.ID, "then")
	write(t, v, "now!")
	snapshotted(t, h, v.ID, "now")
	_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: 2 * disk.GiB})
	must(t, err)
	v, err = h.RollbackVolume(t.Context(), v.ID+"@then")
	must(t, err)
	if v.Size != 2*disk.GiB {
		t.Errorf("it is %s", disk.FormatSize(v.Size))
	}
	reads(t, v, "then")
	if _, err = h.RollbackVolume(t.Context(), "now"); err != nil {
		t.Fatal(err)
	}
	reads(t, v, "now!")

	// One that is cut short says so, and running it again finishes it.
	ctx, cancel := context.WithCancel(t.Context())
	c := config(0)
	c.Observe = func(e Event) {
		if e.Kind == Progress {
			cancel()
		}
	}
	cut, err := Open(t.Context(), c)
	must(t, err)
	defer func() { must(t, cut.Close()) }()
	_, err = cut.RollbackVolume(ctx, v.ID+"@then")
	var e *Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || len(e.Left) != 1 || !strings.Contains(e.Next, "rollback "+v.ID+"@then") {
		t.Errorf("cancelled: %v, %+v", err, e)
	}
	if _, err = h.RollbackVolume(t.Context(), v.ID+"@then"); err != nil {
		t.Fatal(err)
	}
	reads(t, v, "then")
	withImageOf(t, v.Name(), func(*rbd.Image) error {
		_, err := h.RollbackVolume(t.Context(), v.ID+"@now")
		refused(t, err, disk.ErrInUse, "open by", "")
		return nil
	})
}

func TestResizeVolume(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	size := func(to VolumeSize, want int64) {
		t.Helper()
		v, err := h.ResizeVolume(t.Context(), v.ID, to)
		if err != nil || v.Size != want*disk.GiB {
			t.Errorf("%+v gives %s, %v", to, disk.FormatSize(v.Size), err)
		}
	}
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	size(VolumeSize{Size: disk.GiB, By: true}, 3)
	size(VolumeSize{Size: disk.GiB, AllowShrink: true}, 1)
	was := stateNow(t)
	for _, to := range []VolumeSize{{Size: 512 << 20, By: true}, {Size: 1}, {Size: 0, AllowShrink: true}, {Size: -disk.GiB, By: true}} {
		_, err := h.ResizeVolume(t.Context(), v.ID, to)
		refused(t, err, disk.ErrInvalid, "GiB", "")
	}
	size(VolumeSize{Size: 2 * disk.GiB}, 2)
	_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB})
	refused(t, err, disk.ErrInvalid, "shrinking", "")
	was.unchanged(t)
}

// Two runs at once on one volume: each is done or refused, none half.
func TestVolumeRaces(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	was := stateNow(t)
	both := func(work func() error, lost ...error) (won int) {
		t.Helper()
		var group sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			group.Go(func() { errs[i] = work() })
		}
		group.Wait()
		for _, err := range errs {
			var e *Error
			switch {
			case err == nil:
				won++
			case !slices.ContainsFunc(lost, func(kind error) bool { return errors.Is(err, kind) }) || !errors.As(err, &e) || len(e.Left) > 0:
				t.Errorf("one of them: %v", err)
			}
		}
		if won == 0 {
			t.Error("none was done")
		}
		return won
	}
	grown := both(func() error {
		_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
		return err
	}, disk.ErrInUse)
	if now, err := h.Volume(t.Context(), v.ID); err != nil || now.Size != int64(1+grown)*disk.GiB {
		t.Errorf("grown %d times it is %s, %v", grown, disk.FormatSize(now.Size), err)
	}
	if both(func() error { _, err := h.CreateVolumeSnapshot(t.Context(), v.ID, "race"); return err }, disk.ErrExists) != 1 {
		t.Error("several made one snapshot")
	}
	must(t, h.RemoveVolumeSnapshot(t.Context(), v.ID+"@race"))
	if both(func() error { _, err := h.CloneVolume(t.Context(), CloneOptions{ID: "race", Volume: v.ID}); return err }, disk.ErrExists) != 1 {
		t.Error("several made one clone")
	}
	reads(t, disk.Volume{Pool: "volumes", Image: "volume-race"}, "\x00")
	both(func() error { return h.RemoveVolume(t.Context(), "race") }, disk.ErrNotFound, disk.ErrInUse)
	was.unchanged(t)
}

// A pool over its quota is an error and not a wait, and what is half made goes.
func TestVolumeOverQuota(t *testing.T) {
	h := open(t, 0)
	src := volume(t, h)
	snapshotted(t, h, src.ID, "empty")
	withImageOf(t, src.Name(), func(img *rbd.Image) error {
		_, err := img.WriteAt(make([]byte, 1<<20), 0)
		return err
	})
	clone := cloned(t, h, CloneOptions{Image: "guest"})
	quota(t, "volumes", "1")
	t.Cleanup(func() { quota(t, "volumes", "0") })
	was := stateNow(t)
	// The cluster notices some seconds later.
	ctx := waiting(t)
	for {
		v, err := h.CreateVolume(ctx, "", disk.GiB)
		if err != nil {
			refused(t, err, disk.ErrNoSpace, "", "")
			break
		}
		must(t, h.RemoveVolume(ctx, v.ID))
	}
	_, err := h.FlattenVolume(ctx, clone.ID)
	refused(t, err, disk.ErrNoSpace, "", "")
	_, err = h.CloneVolume(ctx, CloneOptions{Volume: src.ID, Flatten: true})
	refused(t, err, disk.ErrNoSpace, "", "")
	_, err = h.CloneVolume(ctx, CloneOptions{Image: "guest"})
	refused(t, err, disk.ErrNoSpace, "", "")
	if _, err = h.RollbackVolume(ctx, src.ID+"@empty"); err != nil && !errors.Is(err, disk.ErrNoSpace) {
		t.Errorf("roll back: %v", err)
	}
	was.unchanged(t)
	must(t, h.RemoveVolume(ctx, clone.ID)) // removing is how it gets space
}

// quota limits a pool; "0" is no limit.
func quota(t testing.TB, pool, bytes string) {
	t.Helper()
	out, err := exec.Command("ceph", "-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket=",
		"osd", "pool", "set-quota", pool, "max_bytes", bytes).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
