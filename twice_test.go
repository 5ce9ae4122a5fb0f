package vmdisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// copied defines a machine of compute1 on compute2 too, without vmdisk.
func copied(t *testing.T, vm VM) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "copy.xml")
	must(t, os.WriteFile(file, []byte(virsh(t, 0, "dumpxml", "--inactive", vm.UUID)), 0o600))
	virsh(t, 1, "define", file)
	t.Cleanup(func() { virsh(t, 1, "undefine", vm.UUID) })
}

// Two QEMUs have one image: ls, why and repair find that, on either host, and the
// one that is not where the machine belongs is stopped.
func TestRunsTwice(t *testing.T) {
	here, there := open(t, 0), open(t, 1)
	vm := guest(t, here)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	_, _, err := there.SetSecret(t.Context())
	must(t, err)
	copied(t, vm)
	r, err := there.Repair(t.Context(), RepairOptions{VM: vm.UUID})
	must(t, err)
	if len(r.Machines) != 1 || r.Machines[0].What != DefinedToo || r.Changed() {
		t.Errorf("repair found %+v", r.Machines)
	}
	if _, err := there.Start(t.Context(), vm.Name); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "running on compute1") {
		t.Errorf("a start of the copy: %v", err)
	}
	virsh(t, 1, "start", "--paused", vm.UUID)

	vms, err := there.VMs(t.Context())
	must(t, err)
	if len(vms) != 1 || vms[0].Elsewhere != "compute1" {
		t.Errorf("ls says %+v", vms)
	}
	for _, h := range []*Host{here, there} {
		w, err := h.Why(t.Context(), vm.UUID)
		must(t, err)
		if !strings.Contains(w.Verdict, "runs") || !strings.Contains(w.Next, "vmdisk repair") || len(w.Disks[0].Users) != 2 {
			t.Errorf("why says %q, %q, %+v", w.Verdict, w.Next, w.Disks)
		}
	}
	for _, tt := range []struct {
		h       *Host
		dry     bool
		changed bool
	}{{here, false, false}, {there, true, false}, {there, false, true}} {
		r, err := tt.h.Repair(t.Context(), RepairOptions{VM: vm.UUID, DryRun: tt.dry})
		must(t, err)
		if len(r.Machines) != 1 || r.Machines[0].What != RunsTwice || r.Changed() != tt.changed {
			t.Errorf("repair found %+v", r.Machines)
		}
	}
	becomes(t, 1, vm.UUID, "off", func(c domain.Condition) bool { return !c.Running })
	r, err = here.Repair(t.Context(), RepairOptions{VM: vm.UUID})
	must(t, err)
	if r.Changed() || len(r.Machines) > 0 {
		t.Errorf("a second repair found %+v", r.Machines)
	}
	c.writes(t, 0, "vda")
	startAfterDeath(t, here, vm)
}

// A machine that virsh has moved has a stale record and is not stopped: it is the
// only one.
func TestMovedWithoutVmdisk(t *testing.T) {
	here, there := open(t, 0), open(t, 1)
	vm := guest(t, here)
	_, _, err := there.SetSecret(t.Context())
	must(t, err)
	virsh(t, 0, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.Name, testLab.Hosts[1].URI)
	for _, tt := range []struct {
		h       *Host
		changed bool
	}{{here, false}, {there, true}, {there, false}, {here, false}} {
		r, err := tt.h.Repair(t.Context(), RepairOptions{VM: vm.UUID})
		must(t, err)
		if r.Changed() != tt.changed {
			t.Errorf("repair found %+v", r.Machines)
		}
	}
	m, err := mustCluster(t, here).FindMachine(t.Context(), disk.VMPool, vm.Name)
	if err != nil || m.Host != "compute2" || m.Generation != 2 || len(m.Clients) != 1 || m.XML == "" {
		t.Errorf("record is %+v, %v", m, err)
	}
	now, err := there.VM(t.Context(), vm.Name)
	if err != nil || now.State != "running" || now.Elsewhere != "" {
		t.Errorf("it is %+v, %v", now, err)
	}
}

// startAfterDeath kills a QEMU, which holds its disk's lock, and whose watch lasts
// 30 s. The next one does not wait for that.
func startAfterDeath(t *testing.T, h *Host, vm VM) {
	t.Helper()
	unfenced(t)
	qemu, err := testLab.Hosts[0].QEMU(vm.Name)
	must(t, err)
	must(t, qemu.Kill(t.Context()))
	becomes(t, 0, vm.UUID, "off", func(c domain.Condition) bool { return !c.Running })
	w, err := h.Why(t.Context(), vm.Name)
	must(t, err)
	if !strings.Contains(w.Verdict, "a dead client has its lock") || w.Next != "vmdisk start "+vm.Name {
		t.Errorf("why says %q, %q", w.Verdict, w.Next)
	}
	_, err = h.Repair(t.Context(), RepairOptions{}) // which writes down that it is off
	must(t, err)
	begin := time.Now()
	_, err = h.Start(t.Context(), vm.Name)
	must(t, err)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the start took %v", took)
	}
	use, err := mustCluster(t, h).Use(t.Context(), disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)})
	if err != nil || len(use.Watchers) != 1 || use.Lock != "" && use.Lock != use.Watchers[0].Addr {
		t.Errorf("the disk is used by %+v, %v", use, err)
	}
	consoleOf(vm.Name).writes(t, 0, "vda")
}
