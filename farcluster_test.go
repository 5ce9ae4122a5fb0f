// A second cluster, into which disks move and out of which they come back.

package vmdisk

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/secret"
)

// farLab is another lab's cluster, for one test.
func farLab(t *testing.T) *lab.Lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmf") // short, as the lab wants it
	must(t, err)
	l, err := lab.Up(t.Context(), lab.Options{Dir: dir, Hosts: 1, Hurried: true})
	must(t, err)
	farConf = l.Conf
	t.Cleanup(func() {
		farConf = ""
		ctx := context.WithoutCancel(t.Context())
		for _, host := range testLab.Hosts {
			conn, err := domain.Connect(ctx, host.URI, 0)
			must(t, err)
			must(t, secret.Remove(conn, secret.UUID(l.FSID, "cinder")))
			_, _ = conn.Close()
		}
		must(t, l.Down(ctx))
		_ = os.Remove(dir) // which the lab has not made
	})
	return l
}

// openFar is a Host on one of the lab's hosts, with another cluster.
func openFar(t testing.TB, i int, conf string) *Host {
	t.Helper()
	h, err := Open(t.Context(), farConfig(i, conf))
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

func farConfig(i int, conf string) Config {
	cfg := config(i)
	cfg.Ceph.Conf = conf
	return cfg
}

func into(conf string) MoveOptions { return MoveOptions{Ceph: &disk.Config{Conf: conf}} }

// hasRecord says whether a cluster knows a machine.
func hasRecord(t *testing.T, h *Host, vm string) bool {
	t.Helper()
	_, err := mustCluster(t, h).Machine(t.Context(), disk.VMPool, vm)
	must(t, gone(err))
	return err == nil
}

// A guest that writes two disks all the time: both go to another cluster while it runs. In
// between it is known to both, and neither tears it apart; after that it is the other's,
// and comes back. Not one acknowledged write is missing.
func TestMoveToAnotherCluster(t *testing.T) {
	there := farLab(t)
	h, far := open(t, 0), openFar(t, 0, there.Conf)
	vm := guest(t, h)
	v := volume(t, h)
	at, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	c.writes(t, 0, at.Target)
	move := func(h *Host, target, pool, conf string) DiskMove {
		t.Helper()
		m, err := h.MoveDisk(t.Context(), vm.Name, target, pool, into(conf))
		must(t, err)
		if !m.Running || m.Stood <= 0 || m.Stood > 2*time.Second {
			t.Errorf("move is %+v", m)
		}
		missing(t, h, m.old())
		c.writes(t, 0, "vda")
		c.writes(t, 0, at.Target)
		return m
	}
	root := move(h, "vda", disk.VMPool, there.Conf)
	for _, one := range []*Host{h, far} {
		_, err := one.Remove(t.Context(), vm.Name)
		refuses(t, err, disk.ErrInvalid, "in another cluster")
		if !hasRecord(t, one, vm.UUID) {
			t.Errorf("the cluster of %s has no record", mustCluster(t, one).Conf())
		}
	}
	if r, err := far.Repair(t.Context(), RepairOptions{}); err != nil || r.Changed() {
		t.Errorf("its record is not what it is: %+v, %v", r, err)
	}
	if seen, err := h.VM(t.Context(), vm.Name); err != nil || seen.Disks[0].Pool != "" || seen.Disks[1].Pool != v.Pool {
		t.Errorf("with the first cluster it has %+v: %v", seen.Disks, err)
	}
	_, err = h.MoveDisk(t.Context(), vm.Name, "vda", otherPool, MoveOptions{})
	refuses(t, err, domain.ErrExists, "in another cluster already")
	vol := move(h, v.ID, disk.VolumePool, there.Conf)
	if hasRecord(t, h, vm.UUID) || !hasRecord(t, far, vm.UUID) {
		t.Error("its record did not go with its disks")
	}
	owner, err := mustCluster(t, far).Owner(t.Context(), vol.made())
	if err != nil || owner.UUID != vm.UUID {
		t.Errorf("the volume's owner is %+v: %v", owner, err)
	}
	_, err = h.Stop(t.Context(), vm.Name, true)
	refuses(t, err, disk.ErrInvalid, "another cluster's")
	if next := nextOf(err); !strings.Contains(next, "--conf "+there.Conf) {
		t.Errorf("next is %q", next)
	}
	for _, one := range []*Host{h, far} {
		if r, err := one.Repair(t.Context(), RepairOptions{}); err != nil || r.Changed() {
			t.Errorf("a repair has something to do: %+v, %v", r, err)
		}
	}
	stopped(t, far, vm)
	intactAt(t, there.Conf, root.made(), c.acked(t, "vda"))
	intactAt(t, there.Conf, vol.made(), c.acked(t, at.Target))
	starts(t, far, vm)
	c.writes(t, 0, "vda")
	back := move(far, "vda", disk.VMPool, testLab.Conf)
	move(far, v.ID, disk.VolumePool, testLab.Conf)
	if !hasRecord(t, h, vm.UUID) || hasRecord(t, far, vm.UUID) {
		t.Error("its record did not come back with its disks")
	}
	stopped(t, h, vm)
	intact(t, back.made(), c.acked(t, "vda"))
	_, err = h.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)
}

// A machine that is off has the same disk in another cluster, settings and all.
func TestMoveOffToAnotherCluster(t *testing.T) {
	there := farLab(t)
	h, far := open(t, 0), openFar(t, 0, there.Conf)
	vm := idle(t, h, "moved")
	root := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)}
	onImage(t, root, func(img *rbd.Image) error { return img.SetMetadata("conf_rbd_cache_policy", "writeback") })
	was := content(t, root)
	unmoved := stateNow(t)
	plan, err := h.PlanMoveDisk(t.Context(), vm.Name, "vda", disk.VMPool, into(there.Conf))
	if err != nil || plan.After == plan.Before || plan.ToConf != there.Conf {
		t.Errorf("plan is %+v: %v", plan, err)
	}
	unmoved.unchanged(t)
	_, err = h.MoveDisk(t.Context(), vm.Name, "vda", disk.VMPool, into(there.Conf))
	must(t, err)
	missing(t, h, root)
	onImageAt(t, there.Conf, root, func(img *rbd.Image) error {
		policy, err := img.GetMetadata("conf_rbd_cache_policy")
		if policy != "writeback" {
			t.Errorf("its cache policy is %q", policy)
		}
		return err
	})
	if now := contentAt(t, there.Conf, root); now != was {
		t.Errorf("content is %s, was %s", now, was)
	}
	starts(t, far, vm)
	removed, err := far.Remove(t.Context(), vm.UUID)
	if err != nil || !slices.Equal(removed.Images, []string{root.String()}) {
		t.Errorf("removed %+v: %v", removed, err)
	}
}

func TestMoveToAnotherClusterRefuses(t *testing.T) {
	there := farLab(t)
	h, far := open(t, 0), openFar(t, 0, there.Conf)
	vm := idle(t, h, "moved")
	for _, tt := range []struct {
		name, pool, conf string
		with             func() (undo func())
		want             error
		says             string
	}{
		{"same cluster", disk.VMPool, testLab.Conf, nil, disk.ErrInvalid, "same cluster"},
		{"no such file", disk.VMPool, "/nowhere/ceph.conf", nil, disk.ErrInvalid, "/nowhere/ceph.conf"},
		{"no such pool", "nowhere", there.Conf, nil, disk.ErrNotFound, "no such pool"},
		{"pool of volumes", disk.VolumePool, there.Conf, nil, disk.ErrInvalid, "volumes"},
		{"name is taken", disk.VMPool, there.Conf, func() func() {
			n := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)}
			must(t, mustCluster(t, far).CreateDisk(t.Context(), n, 1<<20))
			return func() { must(t, mustCluster(t, far).RemoveDisk(t.Context(), n)) }
		}, disk.ErrExists, vm.UUID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			undo := func() {}
			if tt.with != nil {
				undo = tt.with()
			}
			defer undo()
			was := stateNow(t)
			_, err := h.MoveDisk(t.Context(), vm.Name, "vda", tt.pool, into(tt.conf))
			refuses(t, err, tt.want, tt.says)
			was.unchanged(t)
		})
	}
}

// A host that dies in the middle of a move to another cluster: the records name the image
// that counts, and the other is gone.
func TestMoveToAnotherClusterHostGone(t *testing.T) {
	there := farLab(t)
	far := openFar(t, 1, there.Conf)
	for _, tt := range []struct {
		at    point
		moved bool
	}{
		{point{"define", 1, after}, false},
		{point{"pivot", 1, before}, true},
		{point{"remove", 1, before}, true},
	} {
		t.Run(tt.at.String(), func(t *testing.T) {
			h, other := open(t, 0), open(t, 1)
			vm := idle(t, h, "moved")
			root := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)}
			_, err := h.Start(t.Context(), vm.UUID)
			must(t, err)
			if !tt.moved {
				t.Cleanup(func() { virsh(t, 0, "destroy", vm.Name) })
			}
			must(t, dies(movePairs[2].do.process(fixture{VM: vm.Name, UUID: vm.UUID, Far: there.Conf}, tt.at)))
			settledWithout(t, other, "compute1")
			has, hasNot := other, far
			if tt.moved {
				has, hasNot = far, other
			}
			m, err := mustCluster(t, has).Machine(t.Context(), disk.VMPool, vm.UUID)
			must(t, err)
			disks, err := recordedDisks(t.Context(), mustCluster(t, has), m)
			if err != nil || len(disks) != 1 || disks[0].Pool != disk.VMPool {
				t.Errorf("its record says %+v: %v", disks, err)
			}
			if _, err := mustCluster(t, has).Size(t.Context(), root); err != nil {
				t.Error(err)
			}
			missing(t, hasNot, root)
			if hasRecord(t, hasNot, vm.UUID) {
				t.Error("the other cluster has a record, too")
			}
			_, err = far.Repair(t.Context(), RepairOptions{})
			must(t, err)
			must(t, domain.Redefine(t.Context(), connected(t, 0), vm.UUID, func(string) (string, bool, error) { return m.XML, true, nil }))
			if tt.moved {
				virsh(t, 0, "destroy", vm.Name)
				_, err := openFar(t, 0, there.Conf).Remove(t.Context(), vm.UUID)
				must(t, err)
			}
		})
	}
}

// A config drive goes, too, while the machine is off; then nothing of it is left.
func TestMoveConfigDriveToAnotherCluster(t *testing.T) {
	there := farLab(t)
	h, far := open(t, 0), openFar(t, 0, there.Conf)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, ConfigDrive: &disk.ConfigDrive{UserData: []byte("#!/bin/sh\n")}})
	_, err := h.MoveDisk(t.Context(), vm.Name, "vdb", disk.VMPool, into(there.Conf))
	refuses(t, err, disk.ErrInvalid, "stop it first")
	_, err = h.MoveDisk(t.Context(), vm.Name, "vda", disk.VMPool, into(there.Conf))
	must(t, err)
	stopped(t, h, vm)
	m, err := h.MoveDisk(t.Context(), vm.Name, "vdb", disk.VMPool, into(there.Conf))
	if err != nil || m.Role != disk.RoleConfig {
		t.Fatalf("moved %+v: %v", m, err)
	}
	if hasRecord(t, h, vm.UUID) {
		t.Error("its record did not go with its disks")
	}
	starts(t, far, vm)
	removed, err := far.Remove(t.Context(), vm.UUID)
	if err != nil || len(removed.Images) != 2 {
		t.Errorf("removed %+v: %v", removed, err)
	}
}

// The other cluster falls silent while a disk is copied into it: the guest notices nothing,
// and what was copied goes when that answers again.
func TestFarClusterFallsSilent(t *testing.T) {
	there := farLab(t)
	h, hasty := open(t, 0), impatient(t, 0, silence, nil)
	hasty.leastPatience = 0
	vm := guest(t, h)
	f, c := fixture{VM: vm.Name, UUID: vm.UUID}, consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	was := stateNow(t)
	done := make(chan error, 1)
	f.copies(t, c, func() {
		go func() {
			_, err := hasty.MoveDisk(t.Context(), vm.Name, "vda", disk.VMPool, MoveOptions{Ceph: into(there.Conf).Ceph, Bandwidth: 1 << 20})
			done <- err
		}()
	})
	parts := []lab.Part{there.Mon(), there.OSD(0)}
	for _, p := range parts {
		must(t, p.Freeze(t.Context()))
	}
	thaw := sync.OnceFunc(func() {
		for _, p := range parts {
			must(t, p.Thaw(context.WithoutCancel(t.Context())))
		}
	})
	t.Cleanup(thaw)
	c.writes(t, 0, "vda")
	err := <-done
	var e *Error
	if !errors.As(err, &e) || len(e.Left) == 0 {
		t.Errorf("error is %v", err)
	}
	c.writes(t, 0, "vda")
	thaw()
	for ctx := waiting(t); ; must(t, sleep(ctx, 200*time.Millisecond)) {
		_, err := open(t, 0).Repair(ctx, RepairOptions{VM: vm.Name})
		if err == nil && !leftInJournal(t, h) {
			break
		}
	}
	c.writes(t, 0, "vda")
	_, err = openFar(t, 0, there.Conf).Repair(t.Context(), RepairOptions{})
	must(t, err)
	was.unchanged(t)
}

// The command that moves a disk dies, and the next one is of the other cluster: the move is
// brought to an end before that does anything.
func TestFarCommandAfterMoveDied(t *testing.T) {
	there := farLab(t)
	h, far := open(t, 0), openFar(t, 0, there.Conf)
	vm := idle(t, h, "moved")
	_, err := h.Start(t.Context(), vm.UUID)
	must(t, err)
	must(t, dies(movePairs[2].do.process(fixture{VM: vm.Name, UUID: vm.UUID, Far: there.Conf}, point{"pivot", 1, after})))
	_, err = far.Stop(t.Context(), vm.UUID, true)
	must(t, err)
	missing(t, h, disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)})
	if leftInJournal(t, h) || hasRecord(t, h, vm.UUID) || !hasRecord(t, far, vm.UUID) {
		t.Error("the move is not over")
	}
	removed, err := far.Remove(t.Context(), vm.UUID)
	if err != nil || len(removed.Images) != 1 {
		t.Errorf("removed %+v: %v", removed, err)
	}
}
