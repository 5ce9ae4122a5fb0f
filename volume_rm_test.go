package vmdisk

import (
	"errors"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

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

	onImage(t, v.Name(), func(*rbd.Image) error {
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
	rbdCommand(t, "lock", "add", v.Name().String(), "by hand")
	const unlock = "rbd lock rm "
	since := time.Now()
	err = h.RemoveVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrInUse, "lock by hand of client.", unlock+v.Name().String()+" 'by hand' client.")
	_, err = h.TrashVolume(t.Context(), v.ID, 0)
	refused(t, err, disk.ErrInUse, "by hand", unlock)
	_, err = h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
	refused(t, err, disk.ErrInUse, "by hand", unlock)
	_, err = h.CreateVolumeSnapshot(t.Context(), v.ID, "locked")
	refused(t, err, disk.ErrInUse, "by hand", unlock)
	if took := time.Since(since); took > 10*time.Second {
		t.Errorf("a lock by hand is refused after %v", took)
	}
	var lock *disk.LockError
	if !errors.As(err, &lock) {
		t.Fatal("it is not said whose lock it is")
	}
	rbdCommand(t, "lock", "rm", v.Name().String(), lock.ID, lock.Client)
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
	v.Used = 4 << 20 // written since
	if diff := cmp.Diff(v, back); diff != "" {
		t.Error(diff)
	}
	reads(t, back, "kept")
	// By its ID it can still be opened, but not as something in the trash.
	if err := mustCluster(t, h).DropTrashedSnapshots(t.Context(), in, nil); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("snapshots of what was restored: %v", err)
	}
	_, err = h.RestoreVolume(t.Context(), v.ID)
	refused(t, err, disk.ErrNotFound, "not in the trash", "")

	_, err = h.TrashVolume(t.Context(), v.ID, time.Hour)
	must(t, err)
	_, err = h.PurgeVolume(t.Context(), v.ID, true)
	must(t, err)
	was.unchanged(t) // the snapshot that it hung on is gone, too
}

// What a creation that was killed left, a name without an image, can be removed and
// made again.
func TestRemoveHalfMadeVolume(t *testing.T) {
	h := open(t, 0)
	was := stateNow(t)
	v := volume(t, h)
	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext("volumes")
		must(t, err)
		defer io.Destroy()
		var id string
		onImage(t, v.Name(), func(img *rbd.Image) error {
			id, err = img.GetId()
			return err
		})
		must(t, io.Delete("rbd_header."+id))
		must(t, io.Delete("rbd_object_map."+id))
	})
	must(t, h.RemoveVolume(t.Context(), v.ID))
	was.unchanged(t)
}
