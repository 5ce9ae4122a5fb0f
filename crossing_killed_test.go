package vmdisk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// crossings are a guest's disk on its way from one place to another.
var crossings = []struct {
	name string
	// begin makes the machine, whose guest writes.
	begin func(t *testing.T, h *Host) (fixture, console)
	cross func(ctx context.Context, h *Host, f fixture) error
}{
	{"adopt", func(t *testing.T, _ *Host) (fixture, console) {
		file := filepath.Join(t.TempDir(), "disk")
		qemuImg(t, "convert", "-O", "qcow2", testLab.Guest, file)
		return guestIn(t, uuid.NewString(), file)
	}, func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.Adopt(ctx, f.VM, AdoptOptions{})
		return err
	}},
	{"eject", func(t *testing.T, h *Host) (fixture, console) {
		f, c := guestInCeph(t, h)
		f.File = filepath.Join(t.TempDir(), disk.RootDiskName(f.UUID)+".qcow2")
		return f, c
	}, func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.Eject(ctx, f.VM, EjectOptions{Dir: filepath.Dir(f.File)})
		return err
	}},
	{"move", func(t *testing.T, h *Host) (fixture, console) {
		withOtherPool(t)
		return guestInCeph(t, h)
	}, movePair("vda", otherPool, MoveOptions{})},
	{"move to another cluster", func(t *testing.T, h *Host) (fixture, console) {
		there := farLab(t)
		f, c := guestInCeph(t, h)
		f.Far = there.Conf
		t.Cleanup(func() { _ = farBack(context.WithoutCancel(t.Context()), h, f) }) // if it is there
		return f, c
	}, farMove},
}

// victims are who can die in a crossing, besides the command.
var victims = map[string]func(t *testing.T, f fixture){
	"QEMU": func(t *testing.T, f fixture) {
		for _, p := range domain.Processes(f.UUID) {
			must(t, syscall.Kill(p.PID, syscall.SIGKILL))
		}
	},
	"libvirtd": func(t *testing.T, _ fixture) { restarted(t, 0) },
}

var pivots = []point{{"pivot", 1, before}, {"pivot", 1, after}}

func killedCrossing(crossing, victim string, at point) string {
	return crossing + " " + victim + " " + at.String()
}

func guestInCeph(t *testing.T, h *Host) (fixture, console) {
	t.Helper()
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	return fixture{VM: vm.Name, UUID: vm.UUID}, c
}

// QEMU, or libvirtd, dies just before the pivot, while guest and definition have changed
// over and QEMU has not, and just behind it. Whatever the machine is left with has every
// acknowledged write, the other side is gone, and the guest goes on.
func TestCrossingKilled(t *testing.T) {
	for _, crossing := range crossings {
		for victim, kill := range victims {
			for _, at := range pivots {
				t.Run(killedCrossing(crossing.name, victim, at), func(t *testing.T) {
					h, doomed := open(t, 0), impatient(t, 0, 0, nil)
					f, c := crossing.begin(t, h)
					doomed.fault = func(_, step string, when phase) error {
						if step == at.step && when == at.when {
							kill(t, f)
						}
						return nil
					}
					if err := crossing.cross(t.Context(), doomed, f); err == nil && victim == "QEMU" {
						t.Error("it went on")
					}
					_, err := h.Repair(t.Context(), RepairOptions{VM: f.VM})
					must(t, err)
					if r, err := h.Repair(t.Context(), RepairOptions{VM: f.VM}); err != nil || r.Changed() {
						t.Errorf("a second repair has something to do: %+v, %v", r, err)
					}
					if conf := confOf(f.has(t, "vda").Kept); f.Far != "" && conf == f.Far {
						h = openFar(t, 0, f.Far)
					}
					if victim == "libvirtd" {
						c.writes(t, 0, "vda")
						stopped(t, h, VM{UUID: f.UUID})
					}
					f.onOneSide(t, h, c.acked(t, "vda"))
					if _, err := os.Stat(f.File); crossing.name == "eject" && f.has(t, "vda").Kept.Pool != "" && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s is there, and does not count: %v", f.File, err)
					}
					starts(t, h, VM{UUID: f.UUID})
					c.writes(t, 0, "vda")
				})
			}
		}
	}
}

// onOneSide proves that the disk of a machine that is off is where its definition says,
// with all that was acknowledged, and nowhere else in Ceph.
func (f fixture) onOneSide(t *testing.T, h *Host, acked uint64) {
	t.Helper()
	is := f.has(t, "vda").Kept
	if is.Pool != "" {
		intactAt(t, confOf(is), disk.Name{Pool: is.Pool, Image: is.Image}, acked)
	} else {
		holds(t, is.Source, acked)
	}
	if f.Far != "" {
		other := open(t, 0)
		if confOf(is) != f.Far {
			other = openFar(t, 0, f.Far)
		}
		missing(t, other, disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(f.UUID)})
	}
	for _, pool := range []string{disk.VMPool, otherPool} {
		images, err := mustCluster(t, h).MachineImages(t.Context(), pool, f.UUID)
		if errors.Is(err, disk.ErrNotFound) { // it was not needed
			continue
		}
		must(t, err)
		if there := len(images) > 0; there != (is.Pool == pool) {
			t.Errorf("the disk is %s/%s %s, and pool %s has %v", is.Pool, is.Image, is.Source, pool, images)
		}
	}
}

// A command dies right behind the pivot of an ejection: should its host die now, too, the
// machine's record does not name the image any more.
func TestRecordOfEjected(t *testing.T) {
	h := open(t, 0)
	eject := adoptPairs[3]
	f := eject.setup(t, h)
	must(t, dies(eject.do.process(f, point{"pivot", 1, after})))
	if has := f.recorded(t, h); has.Pool != "" || has.Source == "" {
		t.Errorf("its record says %+v", has)
	}
	_, err := h.Repair(t.Context(), RepairOptions{VM: f.VM})
	must(t, err)
	must(t, eject.undo.run(t.Context(), h, f))
}

// A command dies before the pivot, and its host with it: the record names what the disk was
// in, which is there.
func TestRecordOfHostGone(t *testing.T) {
	for _, pair := range []reversible{adoptPairs[1], adoptPairs[3]} {
		t.Run(pair.do.name, func(t *testing.T) {
			h, other := open(t, 0), open(t, 1)
			f := pair.setup(t, h)
			t.Cleanup(func() { virsh(t, 0, "destroy", f.VM) })
			was := f.has(t, "vda").Kept
			must(t, dies(pair.do.process(f, point{"define", 1, after})))
			cluster := settledWithout(t, other, "compute1")
			if has := f.recorded(t, other); has.Pool != was.Pool || has.Source != was.Source {
				t.Errorf("its record says %+v, and it was in %+v", has, was)
			}
			images, err := cluster.MachineImages(t.Context(), disk.VMPool, f.UUID)
			if err != nil || (len(images) > 0) != (was.Pool != "") {
				t.Errorf("in Ceph there are %v, %v", images, err)
			}
			m, err := cluster.Machine(t.Context(), disk.VMPool, f.UUID)
			must(t, err)
			must(t, domain.Redefine(t.Context(), connected(t, 0), f.UUID, func(string) (string, bool, error) { return m.XML, true, nil }))
			_ = os.Remove(filepath.Join(filepath.Dir(testLab.Guest), disk.RootDiskName(f.UUID)+".raw"))
		})
	}
}

// settledWithout has h make an end of the one thing that a command has left, without the
// host on which that ran.
func settledWithout(t *testing.T, h *Host, host string) *disk.Cluster {
	t.Helper()
	cluster := mustCluster(t, h)
	all, err := cluster.Operations(t.Context(), disk.VMPool)
	if err != nil || len(all) != 1 {
		t.Fatalf("operations are %v: %v", all, err)
	}
	on := &session{cluster: cluster}
	defer on.end()
	must(t, h.repairOperation(t.Context(), on, &all[0], host))
	return cluster
}

// recorded is where a machine's record says that its one disk is.
func (f fixture) recorded(t *testing.T, h *Host) domain.DiskInfo {
	t.Helper()
	m, err := mustCluster(t, h).Machine(t.Context(), disk.VMPool, f.UUID)
	must(t, err)
	has, err := domain.ParseDisks(m.XML)
	must(t, err)
	if len(has) != 1 {
		t.Fatalf("its record says %+v", has)
	}
	return has[0]
}
