package vmdisk

import (
	"bytes"
	"os/exec"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// cinderBackup runs Cinder's backup driver.
func cinderBackup(t testing.TB, args ...string) {
	t.Helper()
	c := exec.Command("/usr/bin/python3", append([]string{"testdata/cinder_backup.py", testLab.Conf}, args...)...)
	c.Env = append(c.Environ(), "CEPH_ARGS=--log-file= --admin-socket=")
	var failure bytes.Buffer
	c.Stderr = &failure
	if err := c.Run(); err != nil {
		t.Fatalf("cinder %v: %v\n%s", args, err, failure.String())
	}
}

// One chain, in turns: Cinder's full backup, an incremental of vmdisk, one of
// Cinder, one of vmdisk. Each restores what each made.
func TestBackupsWithCinder(t *testing.T) {
	h := open(t, 0)
	v := backedUp(t, h)
	size := strconv.FormatInt(v.Size/disk.GiB, 10)
	incremental := BackupOptions{Kind: disk.BackupIncremental}
	theirs, again := uuid.NewString(), uuid.NewString()

	cinderBackup(t, "backup", v.ID, theirs, size)
	mess(t, v.Name(), 2)
	first := create(t, h, v.ID, incremental)
	if first.Kind != disk.BackupIncremental || first.Parent != theirs {
		t.Fatalf("on Cinder's backup: %+v", first)
	}
	mess(t, v.Name(), 3)
	mine, err := h.BackupRecord(t.Context(), first.ID)
	must(t, err)
	restored := volume(t, h)
	cinderBackup(t, "backup", v.ID, again, size, mine, "+", "restore", mine, restored.ID, size)
	mess(t, v.Name(), 4)
	second := create(t, h, v.ID, incremental)
	if second.Parent != again {
		t.Fatalf("on Cinder's incremental backup: %+v", second)
	}

	all, err := h.Backups(t.Context(), v.ID)
	must(t, err)
	want := map[string]string{}
	for _, b := range all {
		want[b.ID] = content(t, source(b))
		restores(t, h, b, want[b.ID])
	}
	results, err := h.VerifyBackups(t.Context(), v.ID)
	must(t, err)
	for i, method := range []string{disk.VerifiedBySource, disk.VerifiedBySums, disk.VerifiedBySource, disk.VerifiedBySums} {
		if r := results[i]; r.Method != method || r.Blocks == 0 || r.Part != (method == disk.VerifiedBySums) {
			t.Errorf("verified: %+v", r)
		}
	}
	cinderRestored := func(to disk.Volume, b disk.Backup) {
		t.Helper()
		if got := content(t, to.Name()); got != want[b.ID] {
			t.Errorf("Cinder restores %s backup %s to %s, want %s", b.Kind, b.ID, got, want[b.ID])
		}
		dropBackupSnapshots(t, to.Name()) // import-diff brings the backup's
	}
	cinderRestored(restored, first)

	// Either removes what the other made, and what is left still restores.
	_, err = h.RemoveBackup(t.Context(), theirs)
	must(t, err)
	last, err := h.BackupRecord(t.Context(), second.ID)
	must(t, err)
	restored = volume(t, h)
	cinderBackup(t, "delete", mine, "+", "restore", last, restored.ID, size)
	cinderRestored(restored, second)
	all, err = h.Backups(t.Context(), v.ID)
	must(t, err)
	state := map[string]string{}
	for _, b := range all {
		state[b.ID] = b.State
	}
	if len(all) != 3 || state[first.ID] != disk.BackupBroken || state[second.ID] != disk.BackupComplete {
		t.Errorf("after Cinder removed %s: %+v", first.ID, all)
	}
	restores(t, h, second, want[second.ID])
	if _, err := h.VerifyBackups(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
	// The next backup clears away what Cinder did not know of.
	create(t, h, v.ID, incremental)
	all, err = h.Backups(t.Context(), v.ID)
	must(t, err)
	for _, b := range all {
		if b.State != disk.BackupComplete {
			t.Errorf("left: %+v", b)
		}
	}
}
