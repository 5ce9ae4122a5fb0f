package vmdisk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
)

// refused wants an error of a kind whose text has all the words.
func refuses(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error is %v, want %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestBackupBadInput(t *testing.T) {
	h, ctx := open(t, 0), t.Context()
	v := backedUp(t, h)
	b := create(t, h, v.ID, BackupOptions{ID: "bad"})
	for what, do := range map[string]func() error{
		"vms/someone_disk": func() error { _, err := h.CreateBackup(ctx, "vms/someone_disk", BackupOptions{}); return err },
		"kind":             func() error { _, err := h.CreateBackup(ctx, v.ID, BackupOptions{Kind: "some"}); return err },
		"a-z":              func() error { _, err := h.CreateBackup(ctx, v.ID, BackupOptions{ID: "A/B"}); return err },
		"kept":             func() error { _, err := h.CreateBackup(ctx, v.ID, BackupOptions{Keep: -1}); return err },
		"either":           func() error { _, err := h.RestoreBackup(ctx, b.ID, RestoreOptions{To: v.ID, ID: "x"}); return err },
	} {
		refuses(t, do(), disk.ErrInvalid, what)
	}
	_, err := h.CreateBackup(ctx, v.ID, BackupOptions{ID: "bad"})
	refuses(t, err, disk.ErrExists, "bad")
	_, err = h.CreateBackup(ctx, "nowhere", BackupOptions{})
	refuses(t, err, disk.ErrNotFound, "volume-nowhere")
	_, err = h.CreateBackup(ctx, v.ID, BackupOptions{Snapshot: "nosuch"})
	refuses(t, err, disk.ErrNotFound, "nosuch")
	_, err = h.RestoreBackup(ctx, "nosuch", RestoreOptions{})
	refuses(t, err, disk.ErrNotFound, "nosuch")
	_, err = h.RestoreBackup(ctx, b.ID, RestoreOptions{ID: v.ID})
	refuses(t, err, disk.ErrExists, v.ID)

	small := backedUp(t, h)
	onImage(t, v.Name(), func(img *rbd.Image) error { return img.Resize(2 * disk.GiB) })
	large := create(t, h, v.ID, BackupOptions{})
	_, err = h.RestoreBackup(ctx, large.ID, RestoreOptions{To: small.ID})
	refuses(t, err, disk.ErrInvalid, "1 GiB", "2 GiB")
	onImage(t, v.Name(), func(*rbd.Image) error {
		_, err = h.RestoreBackup(ctx, b.ID, RestoreOptions{To: v.ID})
		return nil
	})
	refuses(t, err, disk.ErrInUse, "open by client")
	snapshotNow(t, v.Name(), "mine")
	_, err = h.RestoreBackup(ctx, b.ID, RestoreOptions{To: v.ID})
	refuses(t, err, disk.ErrHasSnapshots, "@mine")
	dropSnapshot(t, v.Name(), "mine")

	// A second run on the volume, while the first holds it.
	other := onChain(nil, "backup", "of another", v.ID)
	o := disk.Operation{Pool: other.pool, Kind: other.op, Object: other.object, Leases: other.leases}
	must(t, mustCluster(t, h).Begin(ctx, &o))
	_, err = h.CreateBackup(ctx, v.ID, BackupOptions{})
	refuses(t, err, disk.ErrInUse, "backup of another", fmt.Sprint(os.Getpid()))
	_, err = h.RemoveBackup(ctx, b.ID)
	refuses(t, err, disk.ErrInUse, "backup of another")
	_, err = h.VerifyBackups(ctx, b.ID)
	refuses(t, err, disk.ErrInUse, "backup of another")
	must(t, mustCluster(t, h).End(ctx, &o))
	store, err := h.backups(ctx)
	must(t, err)

	// Somebody removed the base's snapshot, then the base.
	dropSnapshot(t, disk.Name{Pool: disk.BackupPool, Image: large.Base}, large.Snapshot)
	_, err = h.RestoreBackup(ctx, large.ID, RestoreOptions{})
	refuses(t, err, disk.ErrInvalid, "chain is broken", large.Snapshot)
	must(t, store.RemoveDisk(ctx, disk.Name{Pool: disk.BackupPool, Image: large.Base}))
	_, err = h.VerifyBackups(ctx, large.ID)
	refuses(t, err, disk.ErrInvalid, "chain is broken")
	dropSnapshot(t, v.Name(), b.Source)
	if next := create(t, h, v.ID, BackupOptions{Kind: disk.BackupIncremental}); next.Kind != disk.BackupFull {
		t.Errorf("without its base: %+v", next)
	}
}

// A bit that flips in the pool is found, named, and not restored.
func TestBackupCorrupt(t *testing.T) {
	h, ctx := open(t, 0), t.Context()
	v := backedUp(t, h)
	must(t, writeVolume(t, v.Name(), func(write func(int64, []byte)) { write(100<<20, []byte("precious")) }))
	b := create(t, h, v.ID, BackupOptions{})
	base := disk.Name{Pool: disk.BackupPool, Image: b.Base}
	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(disk.BackupPool)
		must(t, err)
		defer io.Destroy()
		onImage(t, base, func(img *rbd.Image) error {
			info, err := img.Stat()
			must(t, err)
			object := fmt.Sprintf("%s.%016x", info.Block_name_prefix, (100<<20)/int64(info.Obj_size))
			return io.Write(object, []byte("q"), 2)
		})
	})
	// The snapshot had the object to itself, so that it is the snapshot that changed.
	results, err := h.VerifyBackups(ctx, b.ID)
	refuses(t, err, disk.ErrCorrupt, fmt.Sprint(100<<20))
	if len(results) != 1 || len(results[0].Bad) != 1 || results[0].Bad[0].Offset != 100<<20 {
		t.Errorf("verified: %+v", results)
	}
	_, err = h.RestoreBackup(ctx, b.ID, RestoreOptions{ID: "corrupt"})
	refuses(t, err, disk.ErrCorrupt, fmt.Sprint(100<<20))
	volumes, err := h.Volumes(ctx)
	must(t, err)
	for _, one := range volumes {
		if one.ID == "corrupt" {
			t.Error("a corrupt backup was restored")
		}
	}
}

// The pool is at its quota, is not there, or its user may do nothing in it.
func TestBackupPool(t *testing.T) {
	h, ctx := open(t, 0), t.Context()
	v := backedUp(t, h)
	first := create(t, h, v.ID, BackupOptions{})
	withCeph(t, func(conn *rados.Conn) {
		mon := func(format string, args ...any) {
			t.Helper()
			if _, info, err := conn.MonCommand([]byte(fmt.Sprintf(format, args...))); err != nil {
				t.Fatal(err, info)
			}
		}
		was := stateNow(t)
		io, err := conn.OpenIOContext(disk.BackupPool)
		must(t, err)
		defer io.Destroy()
		must(t, io.SetPoolFullTry())
		probe := func() error { // what the OSDs know of the quota
			err := io.WriteFull("probe", []byte("x"))
			_ = io.Delete("probe")
			return err
		}
		defer func() {
			mon(`{"prefix":"osd pool set-quota","pool":"backups","field":"max_bytes","val":"0"}`)
			for probe() != nil {
				continue
			}
		}()
		mon(`{"prefix":"osd pool set-quota","pool":"backups","field":"max_bytes","val":"1"}`)
		for probe() == nil {
			continue
		}
		_, err = h.CreateBackup(ctx, v.ID, BackupOptions{})
		refuses(t, err, disk.ErrNoSpace)
		was.unchanged(t)
		if _, err := h.RemoveBackup(ctx, first.ID); err != nil {
			t.Error("removing from a full pool:", err)
		}
	})

	elsewhere := config(0)
	elsewhere.BackupPool = "nowhere"
	gone, err := Open(ctx, elsewhere)
	must(t, err)
	defer gone.Close()
	_, err = gone.CreateBackup(ctx, v.ID, BackupOptions{})
	refuses(t, err, disk.ErrNotFound, "no such pool", "nowhere")

	other := config(0)
	other.Backup = disk.Config{User: "glance"}
	wrong, err := Open(ctx, other)
	must(t, err)
	defer wrong.Close()
	_, err = wrong.CreateBackup(ctx, v.ID, BackupOptions{})
	refuses(t, err, disk.ErrPermission, "client.glance", "profile rbd pool=backups")
}
