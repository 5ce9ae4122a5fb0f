package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/secret"
)

// otherPool is a pool that OpenStack's services know nothing of.
const otherPool = "ssd"

var makeOtherPool = sync.OnceValue(func() error {
	caps := secret.Services()[1].Caps
	for _, args := range [][]string{
		{"ceph", "osd", "pool", "create", otherPool, "8"},
		{"rbd", "pool", "init", otherPool},
		{"ceph", "auth", "caps", "client.cinder", "mon", caps["mon"], "osd", caps["osd"] + ", profile rbd pool=" + otherPool},
	} {
		args = slices.Concat(args[:1], []string{"-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket="}, args[1:])
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return nil
})

// withOtherPool sees to it that there is the other pool, and that who connects from now on
// may use it. It stays for the lab's life.
func withOtherPool(t testing.TB) {
	t.Helper()
	must(t, makeOtherPool())
}

// roomAgain takes a pool's quota away, and waits until that is seen.
func roomAgain(t *testing.T, h *Host, pool string) {
	t.Helper()
	quota(t, pool, "0")
	for waiting := waiting(t); ; {
		full, err := mustCluster(t, h).FullPools(waiting)
		must(t, err)
		if !slices.Contains(full, pool) {
			return
		}
		must(t, sleep(waiting, 50*time.Millisecond))
	}
}

// intact proves that every block which the guest saw acknowledged is in an image.
func intact(t *testing.T, n disk.Name, acked uint64) {
	t.Helper()
	intactAt(t, testLab.Conf, n, acked)
}

// intactAt is intact in any cluster.
func intactAt(t *testing.T, conf string, n disk.Name, acked uint64) {
	t.Helper()
	onImageAt(t, conf, n, func(img *rbd.Image) error {
		size, err := img.GetSize()
		must(t, err)
		blocks, err := lab.OracleBlocks(img, int64(size))
		must(t, err)
		if err := blocks.Check(acked); err != nil {
			t.Errorf("%s: %v", n, err)
		}
		return nil
	})
}

// missing proves that there is no such image.
func missing(t *testing.T, h *Host, n disk.Name) {
	t.Helper()
	must(t, mustCluster(t, h).Absent(t.Context(), n))
}

// A guest that writes two disks all the time: both go to another pool, with it to the
// other host, and its own back. Not one acknowledged write is missing.
func TestMoveLive(t *testing.T) {
	withOtherPool(t)
	h, other := open(t, 0), open(t, 1)
	vm := guest(t, h)
	v := volume(t, h)
	at, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{QoS: domain.QoS{TotalIopsSec: 90000}})
	must(t, err)
	f, c := fixture{VM: vm.Name, UUID: vm.UUID}, consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	c.writes(t, 0, at.Target)
	move := func(h *Host, i int, target, pool string) DiskMove {
		t.Helper()
		m, err := h.MoveDisk(t.Context(), vm.Name, target, pool, MoveOptions{})
		must(t, err)
		if !m.Running || m.Stood <= 0 || m.Stood > 2*time.Second {
			t.Errorf("move is %+v", m)
		}
		t.Logf("%s to %s in %v, stood still for %v", target, pool, m.Elapsed, m.Stood)
		missing(t, h, m.old())
		c.writes(t, i, "vda")
		c.writes(t, i, at.Target)
		return m
	}
	root := move(h, 0, "vda", otherPool)
	vol := move(h, 0, v.ID, otherPool)
	if root.Role != disk.RoleRoot || root.Parent != "images/guest@snap" || vol.Role != disk.RoleVolume || vol.Image != v.Image {
		t.Errorf("moved %+v, %+v", root, vol)
	}
	now := f.has(t, at.Target)
	if d := now.Live; d.Pool != otherPool || now.Kept.Pool != otherPool || d.Serial != v.ID || d.QoS.TotalIopsSec != 90000 || now.Kept.Cache != "writeback" {
		t.Errorf("its disk is %+v", now)
	}
	_, err = h.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	must(t, err)
	owner, err := mustCluster(t, h).Owner(t.Context(), vol.made())
	if err != nil || owner.UUID != vm.UUID || owner.Host != "compute2" {
		t.Errorf("the volume's owner is %+v: %v", owner, err)
	}
	if owner, err = mustCluster(t, h).Owner(t.Context(), vol.old()); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("the owner of what was moved away is %+v: %v", owner, err)
	}
	record, err := mustCluster(t, h).Machine(t.Context(), disk.VMPool, vm.UUID)
	must(t, err)
	if images, err := h.imagesOf(t.Context(), mustCluster(t, h), record); err != nil || !slices.Equal(images, []disk.Name{root.made(), vol.made()}) {
		t.Errorf("by its record it has %v: %v", images, err)
	}
	back := move(other, 1, "vda", disk.VMPool)
	stopped(t, other, vm)
	intact(t, back.made(), c.acked(t, "vda"))
	intact(t, vol.made(), c.acked(t, at.Target))
	if d, err := other.Detach(t.Context(), vm.Name, v.ID); err != nil || d.Pool != otherPool {
		t.Errorf("detached %+v: %v", d, err)
	}
	must(t, mustCluster(t, h).RemoveDisk(t.Context(), vol.made()))
}

// A machine that is off has the same disk in another pool, settings and all, and starts
// with it; what it leaves goes with it.
func TestMoveOff(t *testing.T) {
	withOtherPool(t)
	h := open(t, 0)
	vm := idle(t, h, "moved")
	root := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(vm.UUID)}
	onImage(t, root, func(img *rbd.Image) error { return img.SetMetadata("conf_rbd_cache_policy", "writeback") })
	was := content(t, root)
	unmoved := stateNow(t)
	plan, err := h.PlanMoveDisk(t.Context(), vm.Name, "vda", otherPool, MoveOptions{})
	must(t, err)
	if plan.After == plan.Before || plan.Parent == "" {
		t.Errorf("plan is %+v", plan)
	}
	unmoved.unchanged(t)
	t.Run("started meanwhile", func(t *testing.T) {
		h, other := open(t, 0), open(t, 0)
		h.fault = func(_, step string, when phase) error {
			if step == "define" && when == before {
				_, err := other.MoveDisk(t.Context(), vm.Name, "vda", otherPool, MoveOptions{})
				refuses(t, err, disk.ErrInUse, "move "+vm.Name)
				virsh(t, 0, "start", vm.Name)
			}
			return nil
		}
		_, err := h.MoveDisk(t.Context(), vm.Name, "vda", otherPool, MoveOptions{})
		refuses(t, err, disk.ErrInUse, "was started meanwhile")
		virsh(t, 0, "destroy", vm.Name)
		unmoved.unchanged(t)
	})
	m, err := h.MoveDisk(t.Context(), vm.Name, root.Image, otherPool, MoveOptions{})
	must(t, err)
	if m.Running || m.Before != "" {
		t.Errorf("move is %+v", m)
	}
	missing(t, h, root)
	if now := content(t, m.made()); now != was {
		t.Errorf("content is %s, was %s", now, was)
	}
	onImage(t, m.made(), func(img *rbd.Image) error {
		policy, err := img.GetMetadata("conf_rbd_cache_policy")
		if policy != "writeback" {
			t.Errorf("its cache policy is %q", policy)
		}
		return err
	})
	d, err := mustCluster(t, h).Disk(t.Context(), m.made())
	if err != nil || d.Parent != "" {
		t.Errorf("disk is %+v: %v", d, err)
	}
	starts(t, h, vm)
	removed, err := h.Remove(t.Context(), vm.UUID)
	if err != nil || !slices.Equal(removed.Images, []string{m.made().String()}) {
		t.Errorf("removed %+v: %v", removed, err)
	}
	missing(t, h, m.made())
}

func TestMoveRefuses(t *testing.T) {
	withOtherPool(t)
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true, ConfigDrive: &disk.ConfigDrive{UserData: []byte("#!/bin/sh\n")}})
	v := volume(t, h)
	_, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{Target: "vdc"})
	must(t, err)
	_, err = h.CreateVolumeSnapshot(t.Context(), v.ID, "one")
	must(t, err)
	t.Cleanup(func() { // before the volume goes
		_, _ = h.Detach(context.WithoutCancel(t.Context()), vm.Name, v.ID)
		_ = h.RemoveVolumeSnapshot(context.WithoutCancel(t.Context()), v.ID+"@one")
	})
	nothing := func() {}
	for _, tt := range []struct {
		name, target, pool string
		with               func() (undo func())
		want               error
		says               string
	}{
		{"same pool", "vda", "vms", nil, domain.ErrExists, "already"},
		{"no such pool", "vda", "nowhere", nil, disk.ErrNotFound, "no such pool"},
		{"no such disk", "vdx", otherPool, nil, domain.ErrNotFound, "vdx"},
		{"config drive", "vdb", otherPool, nil, disk.ErrInvalid, "config"},
		{"snapshots", v.ID, otherPool, nil, disk.ErrHasSnapshots, "snapshot-one"},
		{"pool of images", "vda", "images", nil, disk.ErrInvalid, "images"},
		{"own disk to the volumes", "vda", "volumes", nil, disk.ErrInvalid, "volumes"},
		{"not a pool's name", "vda", "a/b", nil, disk.ErrInvalid, "a/b"},
		{"name is taken", "vda", otherPool, func() func() {
			n := disk.Name{Pool: otherPool, Image: disk.RootDiskName(vm.UUID)}
			must(t, mustCluster(t, h).CreateDisk(t.Context(), n, 1<<20))
			return func() { must(t, mustCluster(t, h).RemoveDisk(t.Context(), n)) }
		}, disk.ErrExists, otherPool},
		{"in rescue", "vdd", otherPool, func() func() {
			_, err := h.Rescue(t.Context(), vm.Name, RescueOptions{Image: "guest", NoStart: true})
			must(t, err)
			return func() {
				_, err := h.Unrescue(t.Context(), vm.Name, false)
				must(t, err)
			}
		}, domain.ErrExists, "unrescue"},
		{"somebody's block job", "vda", otherPool, func() func() {
			virsh(t, 0, "start", vm.Name)
			other := disk.Name{Pool: disk.VMPool, Image: "job"}
			must(t, mustCluster(t, h).CreateDisk(t.Context(), other, 64<<20))
			with, err := h.rbdDisk(t.Context(), mustCluster(t, h), other, h.secretUUID(mustCluster(t, h)))
			must(t, err)
			with.Target = "vda"
			xml, err := with.XML()
			must(t, err)
			must(t, domain.StartCopy(t.Context(), connected(t, 0), domain.BlockCopy{VM: vm.UUID, Target: "vda", To: xml, Bandwidth: 1 << 20}))
			return func() {
				virsh(t, 0, "destroy", vm.Name)
				must(t, mustCluster(t, h).RemoveDisk(t.Context(), other))
			}
		}, domain.ErrInvalid, "job on vda"},
		{"no room", "vda", otherPool, func() func() {
			quota(t, otherPool, "1")
			return func() { roomAgain(t, h, otherPool) }
		}, disk.ErrNoSpace, "room"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			undo := nothing
			if tt.with != nil {
				undo = tt.with()
			}
			defer undo()
			was := stateNow(t)
			_, err := h.MoveDisk(t.Context(), vm.Name, tt.target, tt.pool, MoveOptions{})
			refuses(t, err, tt.want, tt.says)
			was.unchanged(t)
		})
	}
}

// Whoever dies while a disk is copied: the guest has the one it had, and nothing is left.
func TestMoveKilled(t *testing.T) {
	withOtherPool(t)
	h := open(t, 0)
	vm := guest(t, h)
	f, c := fixture{VM: vm.Name, UUID: vm.UUID}, consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	was := stateNow(t)
	inside := func(ctx context.Context) func() error {
		done := make(chan error, 1)
		go func() { done <- slowMove.run(ctx, h, f) }()
		return func() error { return <-done }
	}
	unchanged := func(t *testing.T) {
		t.Helper()
		c.writes(t, 0, "vda")
		if r, err := h.Repair(t.Context(), RepairOptions{VM: f.VM}); err != nil || r.Changed() {
			t.Errorf("a repair has something to do: %+v, %v", r, err)
		}
		was.unchanged(t)
	}
	t.Run("command", func(t *testing.T) {
		cmd, err := child("workflow", crash{Workflow: slowMove.name, Fixture: f})
		must(t, err)
		f.copies(t, c, func() { must(t, cmd.Start()) })
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		_, err = h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		unchanged(t)
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wait func() error
		f.copies(t, c, func() { wait = inside(ctx) })
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		unchanged(t)
	})
	t.Run("full pool", func(t *testing.T) {
		var wait func() error
		f.copies(t, c, func() { wait = inside(t.Context()) })
		quota(t, otherPool, "1")
		err := wait()
		if !errors.Is(err, disk.ErrNoSpace) {
			t.Errorf("error is %v", err)
		}
		c.writes(t, 0, "vda")
		roomAgain(t, h, otherPool)
		_, err = h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		unchanged(t)
	})
}

// A host that dies in the middle of a move: the machine's record has the image that counts,
// and of the other nothing is left.
func TestMoveHostGone(t *testing.T) {
	withOtherPool(t)
	for _, tt := range []struct {
		at   point
		pool string // in which the disk is then
	}{
		{point{"define", 1, after}, disk.VMPool},
		{point{"remove", 1, before}, otherPool},
	} {
		t.Run(tt.at.String(), func(t *testing.T) {
			h, other := open(t, 0), open(t, 1)
			vm := idle(t, h, "moved")
			_, err := h.Start(t.Context(), vm.UUID)
			must(t, err)
			t.Cleanup(func() { virsh(t, 0, "destroy", vm.Name) })
			must(t, dies(movePairs[0].do.process(fixture{VM: vm.Name, UUID: vm.UUID}, tt.at)))
			cluster := settledWithout(t, other, "compute1")
			m, err := cluster.Machine(t.Context(), disk.VMPool, vm.UUID)
			must(t, err)
			has, err := domain.ParseDisks(m.XML)
			must(t, err)
			if len(has) != 1 || has[0].Pool != tt.pool {
				t.Errorf("its record says %+v", has)
			}
			for _, pool := range []string{disk.VMPool, otherPool} {
				_, err := cluster.Size(t.Context(), disk.Name{Pool: pool, Image: disk.RootDiskName(vm.UUID)})
				if there := err == nil; there != (pool == tt.pool) || !there && !errors.Is(err, disk.ErrNotFound) {
					t.Errorf("in %s: %v", pool, err)
				}
			}
			must(t, domain.Redefine(t.Context(), connected(t, 0), vm.UUID, func(string) (string, bool, error) { return m.XML, true, nil }))
		})
	}
}
