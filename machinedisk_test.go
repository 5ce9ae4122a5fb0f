// What is done with a machine's disks besides booting from them: workflows for the
// fault matrix, what they refuse, and what a killed one leaves.

package vmdisk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// idle is a machine that is off, on an image of its own of 8 MiB.
func idle(t testing.TB, h *Host, image string) VM {
	t.Helper()
	importBlank(t, h, image)
	return bootOf(t, h, BootOptions{Image: image, Memory: guestMemory, NoStart: true})
}

// A running machine whose rescue or rebuild fails at its last step runs again on
// its own disk.
func TestFailedOutageRestarts(t *testing.T) {
	h := open(t, 0)
	importBlank(t, h, "blank")
	vm := bootOf(t, h, BootOptions{Image: "blank", Memory: guestMemory})
	was := stateNow(t)
	for op, work := range map[string]func() error{
		"rescue": func() error {
			_, err := h.Rescue(t.Context(), vm.Name, RescueOptions{Image: "blank", Force: true})
			return err
		},
		"rebuild": func() error {
			_, err := h.Rebuild(t.Context(), vm.Name, RebuildOptions{Image: "blank", Force: true})
			return err
		},
	} {
		if err := failAt(h, point{"start", 1, before}, work); !errors.Is(err, errTest) {
			t.Errorf("%s: error is %v", op, err)
		}
		was.unchanged(t)
	}
}

// Each step of what is needed first is refused by name, and nothing is changed.
func TestMachineDisksRefuse(t *testing.T) {
	h := open(t, 0)
	vm := idle(t, h, "plain")
	root := "vms/" + vm.UUID + "_disk"
	rescued := bootOf(t, h, BootOptions{Image: "plain", Memory: guestMemory, NoStart: true, Swap: 8 << 20})
	if _, err := h.Rescue(t.Context(), rescued.Name, RescueOptions{Image: "plain", NoStart: true}); err != nil {
		t.Fatal(err)
	}
	grown := bootOf(t, h, BootOptions{Image: "plain", Memory: guestMemory, NoStart: true})
	v, err := h.ResizeRevertible(t.Context(), grown.Name, 8<<20, true)
	must(t, err)
	if v.Resize == nil || v.Resize.From != 8<<20 || v.Disks[0].Size != 16<<20 {
		t.Errorf("after the resize the machine is %+v", v)
	}
	snapped := bootOf(t, h, BootOptions{Image: "plain", Memory: guestMemory, NoStart: true})
	rbdCommand(t, "snap", "create", "vms/"+snapped.UUID+"_disk@mine")
	defer rbdCommand(t, "snap", "rm", "vms/"+snapped.UUID+"_disk@mine")
	was := stateNow(t)
	boot := func(o BootOptions) func() error {
		o.Image = "plain"
		return func() error { _, err := h.Boot(t.Context(), "other", o); return err }
	}
	rebuild := func(vm VM, image string) func() error {
		return func() error {
			_, err := h.Rebuild(t.Context(), vm.Name, RebuildOptions{Image: image})
			return err
		}
	}
	rescue := func(vm, image string) func() error {
		return func() error { _, err := h.Rescue(t.Context(), vm, RescueOptions{Image: image}); return err }
	}
	create := func(vm, id string) func() error {
		return func() error {
			_, err := h.CreateImage(t.Context(), vm, CreateImageOptions{ID: id})
			return err
		}
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want error
		says string
	}{
		{"swap of half a MiB", boot(BootOptions{Swap: 1 << 19}), disk.ErrInvalid, "swap"},
		{"negative swap", boot(BootOptions{Swap: -1 << 20}), disk.ErrInvalid, "swap"},
		{"empty ephemeral disk", boot(BootOptions{Ephemeral: []int64{0}}), disk.ErrInvalid, "ephemeral"},
		{"large config drive", boot(BootOptions{ConfigDrive: &disk.ConfigDrive{UserData: make([]byte, disk.MaxConfigDrive+1)}}), disk.ErrInvalid, "64 MiB"},
		{"image of no machine", create("nothing", "x"), domain.ErrNotFound, "nothing"},
		{"image that exists", create(vm.Name, "plain"), disk.ErrExists, "plain"},
		{"image with a colon", create(vm.Name, "a:b"), disk.ErrInvalid, "':'"},
		{"image named as a volume", create(vm.Name, "volume-1"), disk.ErrInvalid, "volume"},
		{"rescue twice", rescue(rescued.Name, "plain"), domain.ErrExists, "vmdisk unrescue"},
		{"rescue from nothing", rescue(vm.Name, "nothing"), disk.ErrNotFound, "nothing"},
		{"rescue of nothing", rescue("nothing", "plain"), domain.ErrNotFound, "nothing"},
		{"unrescue of one that is not", func() error { _, err := h.Unrescue(t.Context(), vm.Name, false); return err }, domain.ErrNotFound, "not in rescue"},
		{"rebuild in rescue", rebuild(rescued, "plain"), domain.ErrExists, "vmdisk unrescue"},
		{"rebuild with a resize pending", rebuild(grown, "plain"), disk.ErrExists, "nova-resize"},
		{"rebuild with a snapshot", rebuild(snapped, "plain"), disk.ErrHasSnapshots, snapped.UUID + "_disk@mine"},
		{"rebuild from nothing", rebuild(vm, "nothing"), disk.ErrNotFound, "nothing"},
		{"second resize", func() error { _, err := h.ResizeRevertible(t.Context(), grown.Name, 32<<20, false); return err }, disk.ErrExists, "pending"},
		{"shrink", func() error { _, err := h.ResizeRevertible(t.Context(), vm.Name, 1<<20, false); return err }, disk.ErrInvalid, "shrink"},
		{"confirm of nothing", func() error { _, err := h.ConfirmResize(t.Context(), vm.Name); return err }, disk.ErrNotFound, "none is pending"},
		{"revert of nothing", func() error { _, err := h.RevertResize(t.Context(), vm.Name, false); return err }, disk.ErrNotFound, "none is pending"},
		{"detach of the machine's swap", func() error { _, err := h.Detach(t.Context(), rescued.Name, "vdb"); return err }, disk.ErrInvalid, "swap"},
		{"disk rm of the root disk", func() error { return h.RemoveDisk(t.Context(), root) }, disk.ErrInUse, vm.Name},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %v with %q", err, tt.want, tt.says)
			}
			was.unchanged(t)
		})
	}
	// A machine with anything of this goes as a whole; bootOf's cleanup does it.
}

// A rescued machine's definition is exactly what it was, whatever it was.
func TestRescueRestoresDefinition(t *testing.T) {
	h := open(t, 0)
	importBlank(t, h, "blank")
	const own = `<domain type='qemu'>
  <metadata><mine:tag xmlns:mine='urn:example'>kept</mine:tag></metadata>
  <memory unit='MiB'>128</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='network' device='disk'><target dev='sda' bus='sata'/><boot order='1'/><iotune><total_iops_sec>500</total_iops_sec></iotune></disk>
    <disk type='network' device='disk'><target dev='sdb' bus='sata'/></disk>
  </devices>
</domain>`
	vm := bootOf(t, h, BootOptions{Image: "blank", DomainXML: own, NoStart: true, Swap: 8 << 20, ConfigDrive: &disk.ConfigDrive{UserData: []byte("x")}})
	targets := func(vm VM) string {
		var all []string
		for _, d := range vm.Disks {
			all = append(all, d.Target+" "+d.Role)
		}
		return strings.Join(all, ", ")
	}
	if got := targets(vm); got != "sda root, sdb swap, vda config" {
		t.Errorf("disks are %s", got)
	}
	was := dumpXML(t, vm)
	vm, err := h.Rescue(t.Context(), vm.Name, RescueOptions{Image: "blank", NoStart: true})
	must(t, err)
	if got := targets(vm); got != "sda rescue, sdb swap, sdc root, vda config" {
		t.Errorf("in rescue disks are %s", got)
	}
	if _, err := h.Unrescue(t.Context(), vm.Name, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, dumpXML(t, vm)); diff != "" {
		t.Error(diff)
	}
}

func dumpXML(t testing.TB, vm VM) string {
	t.Helper()
	out, err := exec.Command("virsh", "-c", testLab.Hosts[0].URI, "dumpxml", "--inactive", vm.Name).Output()
	must(t, err)
	return string(out)
}

// What a killed run leaves, made by hand, does not keep the next from finishing.
func TestKilledIsFinishedByTheNext(t *testing.T) {
	h := open(t, 0)
	vm := idle(t, h, "blank")
	root := "vms/" + vm.UUID + "_disk"
	was := stateNow(t)
	t.Run("rebuild, old disk aside", func(t *testing.T) {
		rbdCommand(t, "rename", root, root+".before")
		rbdCommand(t, "clone", "images/blank@snap", root+".rebuild")
		if _, err := h.Rebuild(t.Context(), vm.Name, RebuildOptions{Image: "blank"}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("rebuild, old disk left", func(t *testing.T) {
		rbdCommand(t, "clone", "images/blank@snap", root+".before")
		if _, err := h.Rebuild(t.Context(), vm.Name, RebuildOptions{Image: "blank"}); err != nil {
			t.Fatal(err)
		}
	})
	was.same(t)
	was = stateNow(t)
	t.Run("rescue", func(t *testing.T) {
		rbdCommand(t, "clone", "images/blank@snap", root+".rescue")
		if _, err := h.Rescue(t.Context(), vm.Name, RescueOptions{Image: "blank", NoStart: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Unrescue(t.Context(), vm.Name, false); err != nil {
			t.Fatal(err)
		}
		was.unchanged(t)
	})
	t.Run("unrescue", func(t *testing.T) {
		rbdCommand(t, "clone", "images/blank@snap", root+".rescue")
		if _, err := h.Unrescue(t.Context(), vm.Name, false); err != nil {
			t.Fatal(err)
		}
		was.unchanged(t)
	})
	leftImage := func() {
		snap := root + "@" + disk.CaptureSnapshot("again")
		rbdCommand(t, "snap", "create", snap)
		rbdCommand(t, "snap", "protect", snap)
		rbdCommand(t, "clone", snap, "images/again.importing")
	}
	t.Run("image create", func(t *testing.T) {
		leftImage()
		if _, err := h.CreateImage(t.Context(), vm.Name, CreateImageOptions{ID: "again"}); err != nil {
			t.Fatal(err)
		}
		must(t, h.RemoveImage(t.Context(), "again"))
		was.unchanged(t)
	})
	t.Run("image create, then rm", func(t *testing.T) {
		leftImage()
		if _, err := h.Remove(t.Context(), vm.Name); !errors.Is(err, disk.ErrHasClones) || !strings.Contains(err.Error(), "images/again.importing") {
			t.Errorf("error is %v", err)
		}
		rbdCommand(t, "rm", "images/again.importing")
		if _, err := h.Remove(t.Context(), vm.Name); err != nil {
			t.Error(err)
		}
	})
}

// Cancelled while its data is copied, making an image leaves nothing.
func TestCreateImageCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := config(0)
	cfg.Observe = func(e Event) {
		watchLeaks(e)
		if e.Kind == Started && e.Step == "flatten" {
			cancel()
		}
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, h.Close()) }()
	vm := bootOf(t, open(t, 0), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	was := stateNow(t)
	if _, err := h.CreateImage(ctx, vm.Name, CreateImageOptions{ID: "cancelled"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
}

// One guest's way through all of it: disks beside the root disk, an image made of
// it while it writes, a resize that is reverted after a migration, a rescue from
// that image.
func TestMachineDisks(t *testing.T) {
	hosts := []*Host{open(t, 0), open(t, 1)}
	vm := bootOf(t, hosts[0], BootOptions{Image: "guest", Memory: guestMemory, Ephemeral: []int64{32 << 20}, Swap: 16 << 20,
		ConfigDrive: &disk.ConfigDrive{UserData: []byte("#cloud-config\npassword: hunter2\n")}})
	c := consoleOf(vm.Name)
	own := func(role, target string, size int64, suffix string) VMDisk {
		return VMDisk{Target: target, Pool: "vms", Image: vm.UUID + "_disk" + suffix, Size: size, Cache: "writeback", Role: role}
	}
	want := []VMDisk{own("root", "vda", 64<<20, ""), own("ephemeral", "vdb", 32<<20, ".eph0"), own("swap", "vdc", 16<<20, ".swap"), own("config", "vdd", vm.Disks[3].Size, ".config")}
	if diff := cmp.Diff(want, vm.Disks); diff != "" {
		t.Error(diff)
	}
	c.writes(t, 0, "vda")
	c.writes(t, 0, "vdb") // which was empty
	hears(t, c, `disk vdd come`)
	for suffix, says := range map[string]string{".swap": "TYPE=swap", ".config": "LABEL=cidata"} {
		file := filepath.Join(t.TempDir(), "disk")
		rbdCommand(t, "export", "--no-progress", "vms/"+vm.UUID+"_disk"+suffix, file)
		if out, err := exec.Command("blkid", "-p", "-o", "export", file).Output(); err != nil || !strings.Contains(string(out), says) {
			t.Errorf("%s is %s, %v", suffix, out, err)
		}
	}

	acked := c.acked(t, "vda")
	image, err := hosts[0].CreateImage(t.Context(), vm.Name, CreateImageOptions{ID: "captured"})
	must(t, err)
	defer func() { must(t, hosts[0].RemoveImage(context.WithoutCancel(t.Context()), "captured")) }()
	c.writes(t, 0, "vda") // it is thawed
	if image.Size != 64<<20 || !image.Protected {
		t.Errorf("image is %+v", image)
	}
	blocks, err := testLab.Blocks(t.Context(), "images/captured")
	must(t, err)
	if err := blocks.Check(acked); err != nil {
		t.Error(err)
	}

	if _, err := hosts[0].ResizeRevertible(t.Context(), vm.Name, 80<<20, false); err != nil {
		t.Fatal(err)
	}
	if v, err := hosts[0].ConfirmResize(t.Context(), vm.Name); err != nil || v.Disks[0].Size != 80<<20 || v.Resize != nil {
		t.Errorf("confirmed, the machine is %+v, %v", v, err)
	}
	acked = c.acked(t, "vda")
	if _, err := hosts[0].ResizeRevertible(t.Context(), vm.Name, 96<<20, false); err != nil {
		t.Fatal(err)
	}
	hears(t, c, `disk vda grow .* 100663296`)
	if _, err := hosts[0].Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.writes(t, 1, "vda")
	c.writes(t, 1, "vdb")
	vm, err = hosts[1].VM(t.Context(), vm.Name)
	must(t, err)
	if vm.Resize == nil || len(vm.Disks) != 4 {
		t.Errorf("after the migration the machine is %+v", vm)
	}
	end := c.acked(t, "vda")
	vm, err = hosts[1].RevertResize(t.Context(), vm.Name, true)
	must(t, err)
	if vm.Resize != nil || vm.Disks[0].Size != 80<<20 || vm.State != "running" {
		t.Errorf("after the revert the machine is %+v", vm)
	}

	// Stopped before the guest has come up again: what it had written before the
	// resize is there, what it wrote at the end is not.
	vm, err = hosts[1].Rescue(t.Context(), vm.Name, RescueOptions{Image: "captured", Force: true})
	must(t, err)
	blocks, err = testLab.Blocks(t.Context(), "vms/"+vm.UUID+"_disk")
	must(t, err)
	if err := blocks.Check(acked); err != nil || blocks.Highest >= end {
		t.Errorf("highest block is %d, %d was written before the resize and %d at the end: %v", blocks.Highest, acked, end, err)
	}
	if got := vm.Disks[0]; got.Role != "rescue" || vm.Disks[4].Role != "root" {
		t.Errorf("in rescue the machine is %+v", vm)
	}
	must(t, c[1].Skip())
	hears(t, console{c[1]}, `disk vde come 83886080`) // its own, beside the image's
	c.writes(t, 1, "vda")
	vm, err = hosts[1].Unrescue(t.Context(), vm.Name, true)
	must(t, err)
	want[0].Size = 80 << 20
	if diff := cmp.Diff(want, vm.Disks); diff != "" {
		t.Error(diff)
	}
}

// Without the right to write to images the error says which.
func TestCreateImageNeedsCaps(t *testing.T) {
	vm := idle(t, open(t, 0), "blank")
	keyring := filepath.Join(t.TempDir(), "keyring")
	out, err := exec.Command("ceph", "-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket=", "auth", "get-or-create", "client.reader",
		"mon", "profile rbd", "osd", "profile rbd pool=vms, profile rbd-read-only pool=images").Output()
	must(t, err)
	must(t, os.WriteFile(keyring, out, 0o600))
	defer func() {
		must(t, exec.Command("ceph", "-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket=", "auth", "rm", "client.reader").Run())
	}()
	cfg := config(0)
	cfg.Ceph.User, cfg.Ceph.Keyring = "reader", keyring
	h, err := Open(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, h.Close()) }()
	was := stateNow(t)
	_, err = h.CreateImage(t.Context(), vm.Name, CreateImageOptions{ID: "denied"})
	if !errors.Is(err, disk.ErrPermission) || !strings.Contains(err.Error(), "profile rbd pool=images") {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
}
