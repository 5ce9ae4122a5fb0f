package vmdisk

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"golang.org/x/sync/errgroup"
)

// rbdDoes is what somebody else than vmdisk does to images.
func rbdDoes(t testing.TB, args ...string) {
	t.Helper()
	if out, err := command("rbd", append([]string{"--id", "admin"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("rbd %v: %v: %s", args, err, out)
	}
}

// What belongs to nothing is listed, with the reason, and removed on request only.
// What somebody has open, or what is young, is not touched.
func TestOrphans(t *testing.T) {
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	v := volume(t, h)
	o := disk.Operation{Pool: disk.ImagePool, Kind: "test"} // the first makes the pool's journal
	must(t, mustCluster(t, h).Begin(t.Context(), &o))
	must(t, mustCluster(t, h).End(t.Context(), &o))
	store, err := h.backups(t.Context())
	must(t, err)
	half := disk.Backup{ID: "half", Volume: v.ID, Pool: disk.VolumePool, State: disk.BackupIncomplete, Size: v.Size, Created: time.Now().UTC(),
		Base: disk.BackupBase(v.Name().Image, "half"), Snapshot: disk.BackupSnapshot("half", time.Now()), By: "vmdisk"}
	must(t, store.WriteBackup(t.Context(), disk.BackupPool, half))
	must(t, store.ForgetBackup(t.Context(), disk.BackupPool, half.ID)) // the object with the notes stays
	was := stateNow(t)
	must(t, store.WriteBackup(t.Context(), disk.BackupPool, half))
	const id, opened = "0e5a4f2c-6a57-4f0e-8f8b-0f9a5c1b7d01", "0e5a4f2c-6a57-4f0e-8f8b-0f9a5c1b7d02"
	for _, id := range []string{id, opened} {
		rbdDoes(t, "clone", "images/guest@snap", "vms/"+id+"_disk")
	}
	rbdDoes(t, "snap", "create", "vms/"+id+"_disk@nova-resize")
	rbdDoes(t, "create", "--size", "1M", "images/half.importing")
	rbdDoes(t, "create", "--size", "1M", "volumes/restoring.volume-half")
	rbdDoes(t, "snap", "create", "volumes/volume-"+v.ID+"@gone.clone_snap")
	rbdDoes(t, "snap", "create", "volumes/volume-"+v.ID+"@kept")
	rbdDoes(t, "snap", "create", "vms/"+vm.UUID+"_disk@nova-resize") // its machine is here
	watching := watch(t, disk.VMPool, opened+"_disk")

	r, err := h.Repair(t.Context(), RepairOptions{})
	must(t, err)
	if len(r.Orphans) > 0 {
		t.Errorf("too young to be orphans: %+v", r.Orphans)
	}
	want := []string{"images/half.importing", "volumes/restoring.volume-half", "volumes/volume-" + v.ID + "@gone.clone_snap", "vms/" + id + "_disk@nova-resize", "vms/" + id + "_disk", "half"}
	for _, remove := range []bool{false, true} {
		r, err := h.Repair(t.Context(), RepairOptions{RemoveOrphans: remove, OlderThan: time.Nanosecond})
		must(t, err)
		var got []string
		for _, o := range r.Orphans {
			got = append(got, o.Name)
			if o.Done != remove || o.Reason == "" || o.Size == 0 || time.Since(o.Created) > time.Hour {
				t.Errorf("orphan is %+v", o)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	watching()
	r, err = h.Repair(t.Context(), RepairOptions{VM: opened, RemoveOrphans: true, OlderThan: time.Nanosecond})
	must(t, err)
	if len(r.Orphans) != 1 || !r.Changed() {
		t.Errorf("orphans are %+v", r.Orphans)
	}
	r, err = h.Repair(t.Context(), RepairOptions{RemoveOrphans: true, OlderThan: time.Nanosecond})
	must(t, err)
	if r.Changed() {
		t.Errorf("a second repair changed %+v", r)
	}
	rbdDoes(t, "snap", "rm", "volumes/volume-"+v.ID+"@kept")
	rbdDoes(t, "snap", "rm", "vms/"+vm.UUID+"_disk@nova-resize")
	was.unchanged(t)
}

// watch opens an image, as somebody else than vmdisk, until it is told to stop.
func watch(t *testing.T, pool, image string) (stop func()) {
	t.Helper()
	open, end := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		defer func() {
			select {
			case <-open:
			default:
				close(open)
			}
		}()
		withCeph(t, func(conn *rados.Conn) {
			io, err := conn.OpenIOContext(pool)
			if err != nil {
				t.Error(err)
				return
			}
			defer io.Destroy()
			img, err := rbd.OpenImage(io, image, rbd.NoSnapshot)
			if err != nil {
				t.Error(err)
				return
			}
			defer img.Close()
			close(open)
			<-end
		})
	})
	<-open
	return func() { close(end); done.Wait() }
}

// BenchmarkRepair compares vmdisk repair of 300 disks of machines that are known with
// rbd ls -l of them, as processes.
func BenchmarkRepair(b *testing.B) {
	h := open(b, 0)
	cluster, err := h.Cluster(b.Context())
	must(b, err)
	ids := make([]string, 1000)
	each := func(f func(i int) error) {
		var group errgroup.Group
		group.SetLimit(8)
		for i := range ids {
			group.Go(func() error { return f(i) })
		}
		must(b, group.Wait())
	}
	each(func(i int) error {
		ids[i] = uuid.NewString()
		if _, err := h.CreateDisk(b.Context(), DiskOptions{Image: "guest", UUID: ids[i]}); err != nil {
			return err
		}
		return cluster.SaveMachine(b.Context(), disk.VMPool, disk.Machine{UUID: ids[i], Name: "bench-" + ids[i][:8],
			Host: "elsewhere", Generation: 1, Clients: []string{"127.0.0.1:0/1"}, XML: "<domain/>"})
	})
	b.Cleanup(func() {
		ctx := context.WithoutCancel(b.Context())
		each(func(i int) error {
			return errors.Join(h.RemoveDisk(ctx, ids[i]), cluster.ForgetMachine(ctx, disk.VMPool, ids[i]))
		})
	})
	vmdisk := buildCommand(b)
	ours := func() error { return command(vmdisk, "repair", "-o", "json").Run() }
	theirs := func() error { return command("rbd", "--id", "cinder", "ls", "-l", "vms").Run() }
	pair(b, ours, theirs, func() error { return nil })
}
