package vmdisk

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

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
			want := disk.Volume{ID: v.ID, Pool: "volumes", Image: "volume-" + v.ID, Size: tt.size, Parent: tt.parent, Used: v.Used, Watchers: []disk.Watcher{}}
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
