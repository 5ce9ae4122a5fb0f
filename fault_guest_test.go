// Faults of the cluster, or of QEMU, under a guest that runs.

package vmdisk

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// watchTime is after how many seconds the cluster forgets a client that does not
// answer, in place of its 30.
const watchTime = "12"

// forgetsSoon has the cluster forget clients sooner that come from now on.
func forgetsSoon(t *testing.T) {
	t.Helper()
	ceph(t, "config", "set", "osd", "osd_client_watch_timeout", watchTime)
	t.Cleanup(func() { ceph(t, "config", "rm", "osd", "osd_client_watch_timeout") })
}

func ceph(t testing.TB, args ...string) {
	t.Helper()
	args = append([]string{"-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket="}, args...)
	if out, err := exec.Command("ceph", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestFaultsUnderGuest(t *testing.T) {
	forgetsSoon(t)
	h := open(t, 0)
	vm, v, more := guest(t, h), volume(t, h), volume(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	must(t, attachIt(t.Context(), h, vm, v))
	t.Cleanup(func() { removeAnywhere(t, vm.UUID) })
	c.writes(t, 0, "vdb")
	t.Run("attach, mon frozen", func(t *testing.T) { attachWithoutMon(t, vm, more) })
	t.Run("QEMU frozen", func(t *testing.T) { ownerFrozen(t, h, vm, v) })
	t.Run("pool full", func(t *testing.T) { poolFull(t, h, vm) })
	t.Run("stop without Ceph", func(t *testing.T) { stopWithoutCeph(t, h, vm) })
}

// QEMU would open the disk in its main loop, and stand still with its guest for 300 s.
func attachWithoutMon(t *testing.T, vm VM, v disk.Volume) {
	h := impatient(t, 0, silence, nil)
	_, err := h.Volume(t.Context(), v.ID) // is connected
	must(t, err)
	conn := connected(t, 0)
	was := stateNow(t)
	must(t, testLab.Mon().Freeze(t.Context()))
	thaw := func() { must(t, testLab.Mon().Thaw(context.WithoutCancel(t.Context()))) }
	since := time.Now()
	err = attachIt(t.Context(), h, vm, v)
	endsInTime(t, "attach", err, since)
	since = time.Now()
	askErr := domain.SetQoS(t.Context(), conn, vm.UUID, "vda", domain.QoS{}) // asks QEMU
	took := time.Since(since)
	thaw()
	if !errors.Is(err, disk.ErrTimeout) || askErr != nil || took > silence {
		t.Errorf("error is %v; QEMU answered after %v, %v", err, took, askErr)
	}
	repaired(t, open(t, 0))
	was.unchanged(t)
	must(t, attachIt(t.Context(), h, vm, v))
	must(t, detachIt(t.Context(), h, vm, v))
}

// A QEMU that does not answer keeps its lock, for as long as it may only sleep.
func ownerFrozen(t *testing.T, h *Host, vm VM, v disk.Volume) {
	cluster := mustCluster(t, h)
	conn := connected(t, 0)
	held, err := cluster.Use(t.Context(), v.Name())
	must(t, err)
	if held.Lock == "" {
		t.Fatal("nobody owns the lock")
	}
	qemu, err := testLab.Hosts[0].QEMU(vm.Name)
	must(t, err)
	must(t, qemu.Freeze(t.Context()))
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			must(t, qemu.Thaw(context.WithoutCancel(t.Context())))
		}
	}
	t.Cleanup(thaw)
	snapshot := func(when string) {
		t.Helper()
		since := time.Now()
		_, err := impatient(t, 0, silence, nil).CreateVolumeSnapshot(t.Context(), v.ID, "frozen")
		endsInTime(t, "snapshot, "+when, err, since)
		if !errors.Is(err, disk.ErrTimeout) || !strings.Contains(err.Error(), "does not respond") || !strings.Contains(err.Error(), held.Lock) {
			t.Errorf("snapshot, %s: %v", when, err)
		}
		use, err := cluster.Use(t.Context(), v.Name())
		must(t, err)
		fences, err := cluster.Fences(t.Context())
		must(t, err)
		if use.Lock != held.Lock || isFenced(fences, held.Lock) {
			t.Errorf("%s the lock is %q's, it was %q's; fenced are %v", when, use.Lock, held.Lock, fences)
		}
	}
	snapshot("while it watches")
	since := time.Now()
	_, err = impatient(t, 0, silence, nil).ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
	endsInTime(t, "resize", err, since)
	if !timedOut(err) {
		t.Errorf("resize: %v", err)
	}
	for ctx := waiting(t); ; {
		use, err := cluster.Use(ctx, v.Name())
		must(t, err)
		if !slices.ContainsFunc(use.Watchers, func(w disk.Watcher) bool { return w.Addr == held.Lock }) {
			break
		}
		must(t, sleep(ctx, leasePoll))
	}
	snapshot("when its watch has expired")
	thaw()
	becomes(t, 0, vm.UUID, "awake", func(c domain.Condition) bool { return c.Running })
	consoleOf(vm.Name).writes(t, 0, "vdb")
	for ctx := waiting(t); ; { // libvirt is waiting for QEMU still
		if err = domain.SetQoS(ctx, conn, vm.UUID, "vda", domain.QoS{}); err == nil {
			break
		}
		must(t, sleep(ctx, leasePoll))
	}
	repaired(t, h)
	snapshotted(t, h, v.ID, "awake")
	// The resize may have come to QEMU before it froze: it was not known.
	_, err = h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: 3 * disk.GiB})
	must(t, err)
}

// A guest that fills its pool waits, and goes on when there is room; what removes
// works meanwhile, and it can be asked what the guest waits for.
func poolFull(t *testing.T, h *Host, vm VM) {
	spare := volume(t, h)
	c := consoleOf(vm.Name)
	quota(t, "volumes", "1")
	roomy := func() { quota(t, "volumes", "0") }
	t.Cleanup(roomy)
	for ctx := waiting(t); ; {
		w, err := h.Why(ctx, vm.Name)
		must(t, err)
		i := slices.IndexFunc(w.Checks, func(c WhyCheck) bool { return c.Name == "room" })
		if i >= 0 && !w.Checks[i].OK && strings.Contains(w.Checks[i].Detail, "volumes") {
			break
		}
		must(t, sleep(ctx, leasePoll))
	}
	since := time.Now()
	_, err := h.CreateVolume(t.Context(), "", disk.GiB)
	if !errors.Is(err, disk.ErrNoSpace) || time.Since(since) > patience {
		t.Errorf("create: %v, after %v", err, time.Since(since))
	}
	must(t, gone(h.RemoveVolume(t.Context(), spare.ID)))
	if _, err := h.Volume(t.Context(), spare.ID); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("removed while the pool is full: %v", err)
	}
	roomy()
	c.writes(t, 0, "vdb")
	if failed, err := c[0].Failed("vdb"); err != nil || failed > 0 {
		t.Errorf("the guest saw %d writes fail, %v", failed, err)
	}
	for ctx := waiting(t); ; { // the cluster notices some seconds later
		made, err := h.CreateVolume(ctx, "", disk.GiB)
		if err == nil {
			must(t, h.RemoveVolume(ctx, made.ID))
			return
		}
		if !errors.Is(err, disk.ErrNoSpace) {
			t.Fatal(err)
		}
	}
}

// The power of a machine can be cut when Ceph answers nothing.
func stopWithoutCeph(t *testing.T, h *Host, vm VM) {
	_, err := h.VMs(t.Context())
	must(t, err)
	cfg := config(0)
	cfg.Timeout = silence
	var warned bool
	cfg.Observe = func(e Event) {
		warned = warned || e.Kind == Warning && strings.Contains(e.Detail, "vmdisk repair "+vm.Name)
	}
	own, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, own.Close()) })
	must(t, testLab.OSD(0).Freeze(t.Context()))
	must(t, testLab.Mon().Freeze(t.Context()))
	stopped, err := own.Stop(t.Context(), vm.Name, true)
	must(t, testLab.Mon().Thaw(context.WithoutCancel(t.Context())))
	must(t, testLab.OSD(0).Thaw(context.WithoutCancel(t.Context())))
	if err != nil || stopped.State != "shut off" || stopped.UUID != vm.UUID || len(stopped.Disks) != 2 || !warned {
		t.Errorf("stopped: %+v, %v, warned: %v", stopped, err, warned)
	}
	repaired(t, h)
	m, err := mustCluster(t, h).Machine(t.Context(), disk.VMPool, vm.UUID)
	if err != nil || m.Running {
		t.Errorf("record: %+v, %v", m, err)
	}
	_, err = h.Start(t.Context(), vm.Name)
	must(t, err)
}

// A machine has only so many slots. When they are used up nothing has changed.
func TestAttachUntilFull(t *testing.T) {
	h := open(t, 0)
	volumes := []disk.Volume{volume(t, h), volume(t, h), volume(t, h)}
	// A machine of this type has one slot more than what it begins with needs.
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory,
		DomainXML: `<domain type='qemu'><memory unit='MiB'>128</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>`})
	for n, v := range volumes {
		was := stateNow(t)
		err := attachIt(t.Context(), h, vm, v)
		if err == nil {
			continue
		}
		t.Logf("of %d: %v", n, err)
		var e *Error
		if !errors.Is(err, domain.ErrNoSlot) || !errors.As(err, &e) || e.Next == "" || len(e.Left) > 0 {
			t.Errorf("error is %v, next %q", err, e.Next)
		}
		was.unchanged(t)
		return
	}
	t.Errorf("%d volumes were attached", len(volumes))
}
