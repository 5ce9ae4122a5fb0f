package vmdisk

import (
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/vmdisk/vmdisk/disk"
)

// A flattening that died between librbd's last two steps has all data and hangs on a
// snapshot that has forgotten it: it is finished. One that died before is left alone,
// and what it hangs on too.
func TestFlattenIsFinished(t *testing.T) {
	h := open(t, 0)
	cluster := mustCluster(t, h)
	src := volume(t, h)
	write(t, src, "kept")
	v := cloned(t, h, CloneOptions{Volume: src.ID})
	finish := func() {
		t.Helper()
		for _, a := range []action{
			{Verb: actFlatten, Image: v.Name().String()},
			{Verb: actDrop, Image: v.Parent, To: v.Name().String()},
		} {
			must(t, h.act(t.Context(), &session{cluster: cluster}, a))
		}
	}
	was := stateNow(t)
	finish()
	was.unchanged(t)

	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(disk.VolumePool)
		must(t, err)
		defer io.Destroy()
		children, err := io.GetAllOmapValues("rbd_children", "", "", 1000)
		must(t, err)
		for key := range children {
			must(t, io.RmOmapKeys("rbd_children", []string{key}))
		}
	})
	finish()
	now, err := h.Volume(t.Context(), v.ID)
	must(t, err)
	snaps, err := h.VolumeSnapshots(t.Context(), src.ID)
	must(t, err)
	if now.Parent != "" || len(snaps) > 0 {
		t.Errorf("it hangs on %q, its source has %+v", now.Parent, snaps)
	}
	reads(t, now.Volume, "kept")
}
