package vmdisk

import (
	"context"
	"slices"
	"testing"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/secret"
)

// cinderCaps has client.cinder have what change makes of what it may do, until the end of
// the test. Who connects from then on is concerned.
func cinderCaps(t *testing.T, change func(secret.User) secret.User) {
	t.Helper()
	cluster := mustCluster(t, asAdmin(t, 0))
	was, err := secret.ReadUser(t.Context(), cluster.Ask, "cinder")
	must(t, err)
	must(t, secret.SetCaps(t.Context(), cluster.Ask, change(was)))
	t.Cleanup(func() { must(t, secret.SetCaps(context.Background(), cluster.Ask, was)) })
}

func mayReadBackups(t *testing.T) {
	t.Helper()
	cinderCaps(t, func(u secret.User) secret.User { return u.Grant(secret.ReadsBackups(disk.BackupPool)) })
}

// A guest writes; its volume is backed up and restored at once, and the same guest goes on
// on that, while it still reads from the backup and while the rest is brought behind it.
func TestRestoreInstant(t *testing.T) {
	mayReadBackups(t)
	h := open(t, 0)
	v := volume(t, h)
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	a, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	c.writes(t, 0, a.Target)
	acked := c.acked(t, a.Target)
	b := create(t, h, v.ID, BackupOptions{})
	_, err = h.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)

	back, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{Instant: true})
	must(t, err)
	t.Cleanup(func() { dropVolume(t, h, back.ID) })
	if want := h.kept(b).String(); back.Parent != want || back.Size != v.Size {
		t.Errorf("it is %+v, and reads from %s", back, want)
	}
	if got, want := content(t, back.Name()), content(t, source(b)); got != want {
		t.Errorf("it is %s, the volume then was %s", got, want)
	}
	_, err = h.RemoveBackup(t.Context(), b.ID)
	refuses(t, err, disk.ErrHasClones, back.Name().String())
	next := create(t, h, v.ID, BackupOptions{Keep: 1}) // which leaves that one
	if _, err := h.Backup(t.Context(), b.ID); err != nil {
		t.Error(err)
	}

	a, err = h.Attach(t.Context(), vm.Name, back.ID, AttachOptions{})
	must(t, err)
	c.writes(t, 0, a.Target)
	if now := c.acked(t, a.Target); now < acked {
		t.Errorf("the guest is at block %d, and was at %d", now, acked)
	}
	flat, err := h.FlattenVolume(t.Context(), back.ID)
	if err != nil || flat.Parent != "" {
		t.Fatalf("it is %+v, %v", flat, err)
	}
	c.writes(t, 0, a.Target)
	acked = c.acked(t, a.Target)
	_, err = h.Detach(t.Context(), vm.Name, back.ID)
	must(t, err)
	onImage(t, back.Name(), func(img *rbd.Image) error {
		blocks, err := lab.OracleBlocks(img, back.Size)
		must(t, err)
		return blocks.Check(acked)
	})
	for _, id := range []string{b.ID, next.ID} {
		_, err = h.RemoveBackup(t.Context(), id)
		must(t, err)
	}
}

// Whoever opens volumes must be allowed to read backups; init allows it, when it is asked
// to, and leaves it so.
func TestInstantRestoreNeedsCap(t *testing.T) {
	cinderCaps(t, func(secret.User) secret.User { return secret.Services()[1] })
	h := open(t, 0)
	v := backedUp(t, h)
	b := create(t, h, v.ID, BackupOptions{})
	t.Cleanup(func() {
		_, err := h.RemoveBackup(context.Background(), b.ID)
		must(t, err)
	})
	_, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{Instant: true})
	refused(t, err, disk.ErrPermission, "client.cinder", "--instant-restore")
	_, err = h.RestoreBackup(t.Context(), b.ID, RestoreOptions{Instant: true, To: v.ID})
	refuses(t, err, disk.ErrInvalid, "new volume")

	admin := asAdmin(t, 0)
	for _, want := range []InitState{Changed, Found} {
		items, err := admin.Init(t.Context(), InitOptions{ClusterOnly: true, InstantRestore: want == Changed})
		must(t, err)
		i := slices.IndexFunc(items, func(i InitItem) bool { return i.Name == "client.cinder" })
		if items[i].State != want {
			t.Errorf("%+v, want %s", items[i], want)
		}
	}
	allowed := open(t, 0)
	back, err := allowed.RestoreBackup(t.Context(), b.ID, RestoreOptions{Instant: true})
	must(t, err)
	must(t, allowed.RemoveVolume(t.Context(), back.ID))
}
