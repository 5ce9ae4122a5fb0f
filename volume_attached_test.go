package vmdisk

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// What can be done with a volume while a guest writes to it, what cannot, and
// that limits hold and move with the machine.
func TestAttachedVolume(t *testing.T) {
	h, other := open(t, 0), open(t, 1)
	vm, v := guest(t, h), volume(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")

	limits := domain.QoS{TotalBytesSec: 50 << 20, TotalBytesSecMax: 100 << 20, TotalBytesSecMaxLength: 5, ReadIopsSec: 400}
	a, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{QoS: limits})
	must(t, err)
	if a.QoS == nil || *a.QoS != limits {
		t.Errorf("attached with %+v", a.QoS)
	}
	c.writes(t, 0, "vdb")
	hasLimits(t, h, 0, vm, limits)
	t.Run("limits bite", func(t *testing.T) {
		slow := domain.QoS{WriteIopsSec: 1}
		if a, err = h.SetQoS(t.Context(), vm.Name, "vdb", slow); err != nil || *a.QoS != slow {
			t.Fatal(a.QoS, err)
		}
		hasLimits(t, h, 0, vm, slow)
		c.writes(t, 0, "vdb") // what was under way is over
		begin, from := time.Now(), c.acked(t, "vdb")
		for range 3 {
			c.writes(t, 0, "vdb")
		}
		rate := float64(c.acked(t, "vdb")-from) / time.Since(begin).Seconds()
		if rate > 1.5 {
			t.Errorf("a guest that is limited to one write a second did %.1f", rate)
		}
		if a, err = h.SetQoS(t.Context(), vm.Name, v.ID, domain.QoS{}); err != nil || a.QoS != nil {
			t.Fatal(a.QoS, err)
		}
		hasLimits(t, h, 0, vm, domain.QoS{})
		_, err = h.SetQoS(t.Context(), vm.Name, v.ID, limits)
		must(t, err)
	})
	t.Run("grows under the guest", func(t *testing.T) {
		_, err := h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
		must(t, err)
		hears(t, c, `disk vdb grow 1073741824 2147483648`)
		_, err = h.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, AllowShrink: true})
		refused(t, err, disk.ErrInvalid, "not shrunk under a machine", "")
		_, err = other.ResizeVolume(t.Context(), v.ID, VolumeSize{Size: disk.GiB, By: true})
		refused(t, err, disk.ErrInUse, vm.Name, "run it on compute1:  vmdisk volume resize "+v.ID+" 3G")
	})
	t.Run("snapshot and clone", func(t *testing.T) {
		acked := c.acked(t, "vdb")
		snapshotted(t, h, v.ID, "live")
		clone := cloned(t, h, CloneOptions{Snapshot: v.ID + "@live"})
		blocks, err := testLab.Blocks(t.Context(), clone.Name().String())
		must(t, err)
		if err := blocks.Check(acked); err != nil {
			t.Error(err)
		}
		copied := cloned(t, h, CloneOptions{Volume: v.ID, Flatten: true})
		if copied.Size != 2*disk.GiB || copied.Parent != "" {
			t.Errorf("copy is %+v", copied)
		}
		_, err = h.RollbackVolume(t.Context(), v.ID+"@live")
		refused(t, err, disk.ErrInUse, vm.Name, "vmdisk detach "+vm.Name+" "+v.ID)
	})
	t.Run("stays", func(t *testing.T) {
		d, err := h.Volume(t.Context(), v.ID)
		must(t, err)
		if d.Attached == nil || d.Attached.VM != vm.Name || len(d.Watchers) != 1 {
			t.Fatalf("it is %+v", d)
		}
		refused(t, h.RemoveVolume(t.Context(), v.ID), disk.ErrInUse, d.Watchers[0].Addr, "on compute1:  vmdisk detach "+vm.Name)
		_, err = h.TrashVolume(t.Context(), v.ID, 0)
		refused(t, err, disk.ErrInUse, vm.Name, "vmdisk detach")
	})
	c.writes(t, 0, "vdb")
	_, err = h.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	must(t, err)
	hasLimits(t, other, 1, vm, limits)
	c.writes(t, 1, "vdb")
	_, err = other.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)
}

// hasLimits compares what vmdisk, libvirt's definition and QEMU say of vdb.
func hasLimits(t *testing.T, h *Host, host int, vm VM, want domain.QoS) {
	t.Helper()
	now, err := h.VM(t.Context(), vm.UUID)
	must(t, err)
	var has domain.QoS
	if q := now.Disks[1].QoS; q != nil {
		has = *q
	}
	if diff := cmp.Diff(want, has); diff != "" {
		t.Error(diff)
	}
	virsh := func(args ...string) string {
		out, err := exec.Command("virsh", append([]string{"-c", testLab.Hosts[host].URI}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("virsh %v: %s", args, out)
		}
		return string(out)
	}
	for _, scope := range []string{"--live", "--config"} {
		out := virsh("blkdeviotune", vm.UUID, "vdb", scope)
		for _, name := range []string{"total_bytes_sec", "total_bytes_sec_max", "read_iops_sec", "write_iops_sec"} {
			value := regexp.MustCompile(`(?m)^` + name + `\s*: (\d+)$`).FindStringSubmatch(out)
			if len(value) != 2 || value[1] != strconv.FormatUint(*want.Limit(name), 10) {
				t.Errorf("%s of %s is %v, want %d", scope, name, value, *want.Limit(name))
			}
		}
	}
}

func TestLimitsRefused(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	was := stateNow(t)
	for _, q := range []domain.QoS{
		{TotalBytesSec: 1, ReadBytesSec: 1},
		{ReadIopsSecMax: 2},
	} {
		_, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{QoS: q})
		refused(t, err, domain.ErrInvalid, "limits: ", "")
	}
	if _, err := h.SetQoS(t.Context(), vm.Name, v.ID, domain.QoS{}); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("not attached: %v", err)
	}
	was.unchanged(t)
}
