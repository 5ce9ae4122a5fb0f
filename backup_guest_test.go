package vmdisk

import (
	"testing"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/lab"
)

// points is how many incremental backups are made of the disk that a guest writes
// on.
const backupPoints = 10

// A guest writes numbered blocks on a volume while that is backed up through a
// chain of ten incrementals. Each of the ten restores to what the volume was at that
// moment, to the bit, and every block acknowledged before is there.
func TestBackupsOfWritingGuest(t *testing.T) {
	h := open(t, 0)
	v := backedUp(t, h)
	// The oracle takes a blank disk only.
	onImage(t, v.Name(), func(img *rbd.Image) error {
		_, err := img.Discard(0, uint64(v.Size))
		return err
	})
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	at, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	t.Cleanup(func() { removeAnywhere(t, vm.UUID) })

	type moment struct {
		disk.Backup
		acked, after uint64
	}
	var moments []moment
	frozen := 0
	for i := range backupPoints + 1 {
		c.writes(t, 0, at.Target)
		m := moment{acked: c.acked(t, at.Target)}
		m.Backup = create(t, h, v.ID, BackupOptions{Kind: disk.BackupIncremental})
		m.after = c.acked(t, at.Target)
		if (m.Kind == disk.BackupFull) != (i == 0) {
			t.Errorf("backup %d is %s", i, m.Kind)
		}
		if m.Frozen {
			frozen++
		}
		moments = append(moments, m)
	}
	t.Logf("%d of %d with the guest frozen", frozen, len(moments))
	for i, m := range moments {
		back, err := h.RestoreBackup(t.Context(), m.ID, RestoreOptions{})
		must(t, err)
		if got, want := content(t, back.Name()), content(t, source(m.Backup)); got != want {
			t.Errorf("point %d is %s, the volume then was %s", i, got, want)
		}
		onImage(t, back.Name(), func(img *rbd.Image) error {
			blocks, err := lab.OracleBlocks(img, back.Size)
			if err != nil {
				return err
			}
			if err := blocks.Check(m.acked); err != nil {
				t.Errorf("point %d: %v", i, err)
			}
			if blocks.Highest > m.after+1 {
				t.Errorf("point %d has block %d, and %d was the last when it was over", i, blocks.Highest, m.after)
			}
			return nil
		})
		must(t, h.RemoveVolume(t.Context(), back.ID))
	}
	// Not while the guest has it, and the guest still writes.
	_, err = h.RestoreBackup(t.Context(), moments[0].ID, RestoreOptions{To: v.ID})
	refuses(t, err, disk.ErrInUse, vm.Name)
	c.writes(t, 0, at.Target)
	_, err = h.Remove(t.Context(), vm.UUID)
	must(t, err)
}
