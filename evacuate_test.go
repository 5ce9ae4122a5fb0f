package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"libvirt.org/go/libvirt"
)

// connected is a libvirt connection to a host.
func connected(t testing.TB, i int) *libvirt.Connect {
	t.Helper()
	conn, err := domain.Connect(t.Context(), testLab.Hosts[i].URI, 0)
	must(t, err)
	t.Cleanup(func() { _, _ = conn.Close() })
	return conn
}

// becomes waits until a machine on a host is what is asked for.
func becomes(t *testing.T, host int, vm, what string, is func(domain.Condition) bool) {
	t.Helper()
	conn, ctx := connected(t, host), waiting(t)
	for {
		c, err := domain.Inspect(ctx, conn, vm)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if is(c) {
			return
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			t.Fatalf("not %s but %s", what, c.State)
		}
	}
}

// asAdmin is a Host that may lift fences.
func asAdmin(t *testing.T, i int) *Host {
	t.Helper()
	cfg := config(i)
	cfg.Ceph.User = "admin"
	h, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

// unfenced lifts the fences that a test has made, when it ends.
func unfenced(t *testing.T) {
	t.Helper()
	fences := func(ctx context.Context) (*disk.Cluster, []disk.Fenced) {
		c, err := disk.Open(ctx, disk.Config{Conf: testLab.Conf, User: "admin"})
		must(t, err)
		all, err := c.Fences(ctx)
		must(t, err)
		return c, all
	}
	c, was := fences(t.Context())
	c.Close()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		c, now := fences(ctx)
		defer c.Close()
		for _, f := range now {
			if !isFenced(was, f.Addr) {
				must(t, c.Unfence(ctx, f.Addr))
			}
		}
	})
}

// frozen freezes a whole host until the test ends, or until it is thawed.
func frozen(t *testing.T, i int) (thaw func()) {
	t.Helper()
	whole, done := testLab.Hosts[i].Whole(), false
	must(t, whole.Freeze(t.Context()))
	thaw = func() {
		if !done {
			done = true
			must(t, whole.Thaw(context.WithoutCancel(t.Context())))
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// abandoned is an operation on a machine that its process has left half done, and
// that takes compute1's libvirt to be taken back.
func abandoned(t *testing.T, vm VM) {
	t.Helper()
	c, err := disk.Open(t.Context(), disk.Config{Conf: testLab.Conf})
	must(t, err)
	o := disk.Operation{Pool: disk.VMPool, Kind: "attach", Object: vm.Name, Leases: []string{disk.VMPool + "/" + vm.UUID}}
	must(t, c.Begin(t.Context(), &o))
	o.Plan, err = json.Marshal(plan{Begun: 1, VM: vm.UUID, Steps: []planned{{Name: "attach",
		Back: []action{{Verb: actUnplug, Image: "volumes/nothing", VM: vm.UUID, Name: vm.Name, Host: "compute1"}}}}})
	must(t, err)
	must(t, c.Advance(t.Context(), &o))
	c.Close() // nothing else is said of it
}

// A host freezes with a guest that writes, and with a workflow half done. The guest
// goes on elsewhere, no acknowledged write is missing, and when the host wakes up,
// what was left there writes nothing and is cleared away.
func TestEvacuate(t *testing.T) {
	unfenced(t)
	here, there := open(t, 0), open(t, 1)
	vm, v := guest(t, here), volume(t, here)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	attached(t, here, vm, v)
	must(t, recordNow(t, here, vm.UUID)) // until attach keeps it
	c.writes(t, 0, "vdb")
	abandoned(t, vm)
	thaw := frozen(t, 0)

	_, err := there.Repair(t.Context(), RepairOptions{VM: vm.Name})
	if err == nil || !strings.Contains(err.Error(), "takes the libvirt of compute1") {
		t.Errorf("repair elsewhere says %v", err)
	}
	w, err := there.Why(t.Context(), vm.Name)
	must(t, err)
	if w.Hosts[1].State != "does not answer" || w.Record.Host != "compute1" || len(w.Disks) != 2 || len(w.Operations) != 1 {
		t.Errorf("why says %+v", w)
	}
	moved, err := there.Evacuate(t.Context(), vm.Name, EvacuateOptions{From: "compute1"})
	must(t, err)
	if moved.State != "running" || moved.Host != "compute2" || len(moved.Disks) != 2 {
		t.Errorf("evacuated machine is %+v", moved)
	}
	c.writes(t, 1, "vda")
	c.writes(t, 1, "vdb")
	thaw()
	becomes(t, 0, vm.UUID, "paused by the fence", func(c domain.Condition) bool { return c.IOError })
	// An answer that was on its way when it froze it hears now: of a write that was
	// there before the other guest looked.
	for _, target := range []string{"vda", "vdb"} {
		last, err := c[0].Acked(target)
		must(t, err)
		if first := firstAcked(t, c[1], target); last >= first {
			t.Errorf("the fenced guest had %d acknowledged on %s; the other began with %d", last, target, first)
		}
	}
	left(t, here, there, vm)

	c.writes(t, 1, "vda")
	m, err := mustCluster(t, there).Machine(t.Context(), disk.VMPool, vm.UUID)
	if err != nil || m.Host != "compute2" || m.Generation != 2 || !m.Running || len(m.Clients) != 2 || len(m.Behind) != 0 {
		t.Errorf("record is %+v, %v", m, err)
	}
	owner, err := mustCluster(t, there).Owner(t.Context(), v.Name())
	if err != nil || owner.Host != "compute2" {
		t.Errorf("owner is %v, %v", owner, err)
	}
	_, err = there.Stop(t.Context(), vm.Name, true)
	must(t, err)
	for target, image := range map[string]string{"vda": "vms/" + vm.UUID + "_disk", "vdb": "volumes/volume-" + v.ID} {
		blocks, err := testLab.Blocks(t.Context(), image)
		must(t, err)
		if err := blocks.Check(c.acked(t, target)); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	_, err = there.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)
}

// firstAcked is the first number that a guest saw acknowledged.
func firstAcked(t *testing.T, c *lab.Console, target string) (n uint64) {
	t.Helper()
	all, err := c.All()
	must(t, err)
	_, rest, _ := strings.Cut("\n"+all, "\nack "+target+" ")
	_, err = fmt.Sscan(rest, &n)
	must(t, err)
	return n
}

// left is what repair does on the host that woke up.
func left(t *testing.T, here, there *Host, vm VM) {
	t.Helper()
	_, err := here.Start(t.Context(), vm.Name)
	if !errors.Is(err, disk.ErrInUse) {
		t.Errorf("a start of what was left behind: %v", err)
	}
	for _, dry := range []bool{true, false} {
		r, err := here.Repair(t.Context(), RepairOptions{VM: vm.Name, DryRun: dry})
		must(t, err)
		if len(r.Machines) != 1 || r.Machines[0].What != LeftBehind || r.Changed() == dry {
			t.Errorf("repair (dry run: %v) found %+v", dry, r.Machines)
		}
	}
	if _, err := here.VM(t.Context(), vm.UUID); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("it is still defined where it was left: %v", err)
	}
	r, err := here.Repair(t.Context(), RepairOptions{VM: vm.UUID})
	must(t, err)
	if r.Changed() || len(r.Machines) != 1 || !strings.Contains(r.Machines[0].Next, "ceph osd blocklist rm") {
		t.Errorf("a second repair found %+v", r)
	}
	r, err = asAdmin(t, 0).Repair(t.Context(), RepairOptions{VM: vm.UUID})
	must(t, err)
	if !r.Changed() {
		t.Errorf("an administrator's repair found %+v", r)
	}
	for _, h := range []*Host{here, there} {
		r, err := h.Repair(t.Context(), RepairOptions{VM: vm.UUID})
		must(t, err)
		if r.Changed() || len(r.Machines)+len(r.Operations) > 0 {
			t.Errorf("a last repair found %+v", r)
		}
	}
}

func mustCluster(t testing.TB, h *Host) *disk.Cluster {
	t.Helper()
	c, err := h.Cluster(t.Context())
	must(t, err)
	return c
}

// recordNow writes down what a machine is.
func recordNow(t *testing.T, h *Host, vm string) error {
	t.Helper()
	var with session
	defer with.end()
	must(t, with.open(t.Context(), h))
	return h.keepRecord(t.Context(), &with, vm)
}

func TestEvacuateRefuses(t *testing.T) {
	here, there := open(t, 0), open(t, 1)
	vm := bootOf(t, here, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	was := stateNow(t)
	for _, tt := range []struct {
		name string
		h    *Host
		vm   string
		from string
		want error
		says string
	}{
		{"answers", there, vm.Name, "compute1", disk.ErrInUse, "libvirt of compute1 answers"},
		{"its URI", there, vm.UUID, testLab.Hosts[0].URI, disk.ErrInUse, "libvirt of compute1 answers"},
		{"another host", there, vm.Name, "compute3", disk.ErrInvalid, "is not on compute3"},
		{"here", here, vm.Name, "compute1", domain.ErrExists, "is on this host"},
		{"no record", there, "nothing", "compute1", disk.ErrNotFound, "no record"},
		{"no host", there, vm.Name, "", disk.ErrInvalid, "not said"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.h.Evacuate(t.Context(), tt.vm, EvacuateOptions{From: tt.from})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v", err)
			}
		})
	}
	was.unchanged(t)
}

// virsh does something behind vmdisk's back.
func virsh(t testing.TB, host int, args ...string) string {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", testLab.Hosts[host].URI}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
	return string(out)
}

// An evacuation fails before and after each of its steps, or its process is killed
// there. The machine then is on one host, the one that its record says, and can be
// evacuated from there.
func TestEvacuateInterrupted(t *testing.T) {
	here, there := open(t, 0), open(t, 1)
	vm := bootOf(t, here, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	f := fixture{VM: vm.Name}
	work := func() error { return evacuateWorkflow.run(t.Context(), there, f) }
	repaired := func() {
		for _, h := range []*Host{there, here} {
			_, err := h.Repair(t.Context(), RepairOptions{VM: vm.UUID})
			must(t, err)
			r, err := h.Repair(t.Context(), RepairOptions{VM: vm.UUID})
			if err != nil || r.Changed() || len(r.Operations)+len(r.Machines) > 0 {
				t.Errorf("a second repair found %+v, %v", r, err)
			}
		}
	}
	back := func() {
		_, err := here.Evacuate(t.Context(), vm.Name, EvacuateOptions{From: "compute2", Force: true})
		must(t, err)
		repaired()
	}
	all := points(t, there, work)
	repaired()
	back()
	for _, p := range all {
		for _, how := range []interruption{{"failed", failedAt}, {"killed", func(_ *testing.T, _ *Host, w workflow, f fixture, p point) error {
			return dies(w.process(f, p))
		}}} {
			t.Run(how.name+" "+p.String(), func(t *testing.T) {
				_ = how.at(t, there, evacuateWorkflow, f, p)
				repaired()
				m, err := mustCluster(t, there).Machine(t.Context(), disk.VMPool, vm.UUID)
				must(t, err)
				for _, h := range []*Host{here, there} {
					_, err := h.VM(t.Context(), vm.UUID)
					if defined := err == nil; defined != (m.Host == map[*Host]string{here: "compute1", there: "compute2"}[h]) {
						t.Errorf("the record says %s, and a host: %v", m.Host, err)
					}
				}
				if m.Host == "compute1" {
					must(t, work())
					repaired()
				}
				back()
			})
		}
	}
}
