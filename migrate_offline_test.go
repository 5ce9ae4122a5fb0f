// Cold migration. What interrupts it is in TestInterrupted.

package vmdisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

func TestMigrateOffline(t *testing.T) {
	h, there := open(t, 0), open(t, 1)
	f := offWithVolume(t, h)
	_, err := h.Attach(t.Context(), f.VM, f.Volume, AttachOptions{})
	must(t, err)
	t.Cleanup(func() { removeAnywhere(t, f.UUID) })
	m, err := h.Migrate(t.Context(), f.VM, testLab.Hosts[1].URI, MigrateOptions{Offline: true})
	must(t, err)
	if m.From != "compute1" || m.To != "compute2" || m.Elapsed <= 0 {
		t.Errorf("it is %+v", m)
	}
	if _, err := h.VM(t.Context(), f.VM); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("on the source: %v", err)
	}
	record, err := mustCluster(t, h).Machine(t.Context(), "vms", f.UUID)
	if err != nil || record.Host != "compute2" || record.Running || record.Generation == 0 {
		t.Errorf("the record is %s %v %d, %v", record.Host, record.Running, record.Generation, err)
	}
	all, err := h.Volumes(t.Context())
	if err != nil || len(all) != 1 || all[0].Attached == nil || all[0].Attached.Host != "compute2" {
		t.Errorf("volumes are %+v, %v", all, err)
	}
	_, err = there.Start(t.Context(), f.VM)
	must(t, err)
	t.Run("running", func(t *testing.T) {
		refusesToMove(t, there, f.VM, true, migrate.ErrRunning, "without --offline")
	})
	_, err = there.Stop(t.Context(), f.VM, true)
	must(t, err)
	t.Run("shut off", func(t *testing.T) {
		refusesToMove(t, there, f.VM, false, domain.ErrNotRunning, "with --offline")
	})
	t.Run("local drive", func(t *testing.T) {
		iso := filepath.Join(t.TempDir(), "x.iso")
		must(t, os.WriteFile(iso, make([]byte, 512), 0o644))
		virsh(t, 1, "attach-disk", f.VM, iso, "sda", "--type", "cdrom", "--config")
		refusesToMove(t, there, f.VM, true, migrate.ErrUnsafe, "")
		virsh(t, 1, "detach-disk", f.VM, "sda", "--config")
	})
	_, err = there.Migrate(t.Context(), f.VM, testLab.Hosts[0].URI, MigrateOptions{Offline: true})
	must(t, err)
	_, err = h.Detach(t.Context(), f.VM, f.Volume)
	must(t, err)
}

// refusesToMove expects a migration that changes nothing, and what to type instead.
func refusesToMove(t *testing.T, h *Host, vm string, offline bool, want error, next string) {
	t.Helper()
	was := stateNow(t)
	_, err := h.Migrate(t.Context(), vm, testLab.Hosts[0].URI, MigrateOptions{Offline: offline})
	fails(t, err, want)
	var e *Error
	if !errors.As(err, &e) || !strings.HasSuffix(e.Next, next) || !strings.HasSuffix(e.State, " on compute2 as before") {
		t.Errorf("error is %v, %q", err, e.Next)
	}
	was.unchanged(t)
}
