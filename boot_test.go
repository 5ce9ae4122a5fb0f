package vmdisk

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirtxml"
)

func TestBoot(t *testing.T) {
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Size: 256 << 20, Memory: guestMemory})
	want := VM{
		Name: vm.Name, UUID: vm.UUID, State: "running", Host: "compute1",
		Disks: []VMDisk{{Target: "vda", Pool: "vms", Image: vm.UUID + "_disk", Size: 256 << 20, Cache: "writeback", Role: "root"}},
	}
	if diff := cmp.Diff(want, vm); diff != "" {
		t.Error(diff)
	}
	d, err := h.Disk(t.Context(), vm.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if d.Parent != "images/guest@snap" || len(d.Watchers) != 1 {
		t.Errorf("root disk is %+v", d)
	}
	consoleOf(vm.Name).writes(t, 0, "vda")
}

// The guest's librbd reads the lab's ceph.conf: its admin socket and its log are
// where that says, and its cache writes back.
func TestGuestUsesCephConf(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	consoleOf(vm.Name).writes(t, 0, "vda")
	sockets := adminSockets(t, 0, vm)
	for option, want := range map[string]string{"rbd_cache_policy": "writeback", "rbd_cache": "true"} {
		out, err := exec.Command("ceph", "--admin-daemon", sockets[0], "config", "get", option).Output()
		if err != nil || !strings.Contains(string(out), `"`+want+`"`) {
			t.Errorf("%s is %s, want %s (%v)", option, out, want, err)
		}
	}
}

// adminSockets are those of a running machine's librbd, one a disk, which also has a
// log.
func adminSockets(t *testing.T, host int, vm VM) []string {
	t.Helper()
	part, err := testLab.Hosts[host].QEMU(vm.Name)
	must(t, err)
	ceph := filepath.Dir(testLab.Conf)
	sockets, err := filepath.Glob(filepath.Join(ceph, "guests", fmt.Sprintf("ceph-client.cinder.%d.*.asok", part.PID())))
	if err != nil || len(sockets) == 0 {
		t.Fatalf("admin sockets of the guest: %v, %v", sockets, err)
	}
	if _, err := os.Stat(filepath.Join(ceph, "log-guests", fmt.Sprintf("qemu-guest-%d.log", part.PID()))); err != nil {
		t.Error(err)
	}
	return sockets
}

// vmdisk's own connections leave neither log nor socket in the guests' folder.
func TestOwnConnectionLeavesNoLog(t *testing.T) {
	logs := func() []string {
		var all []string
		for _, dir := range []string{"guests", "log-guests"} {
			found, err := filepath.Glob(filepath.Join(filepath.Dir(testLab.Conf), dir, "*"))
			must(t, err)
			all = append(all, found...)
		}
		return all
	}
	was := logs()
	if _, err := open(t, 0).Images(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, logs()); diff != "" {
		t.Error(diff)
	}
}

const ownDomain = `<domain type='qemu'>
  <metadata><mine:tag xmlns:mine='urn:example'>kept</mine:tag></metadata>
  <memory unit='MiB'>128</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <disk type='network' device='disk'>
      <target dev='vda' bus='virtio'/>
      <iotune><total_iops_sec>5000</total_iops_sec></iotune>
    </disk>
    <serial type='pty'/>
  </devices>
</domain>`

func TestBootSuppliesDisksOfOwnDomain(t *testing.T) {
	h := open(t, 0)
	id := uuid.NewString()
	vm := bootOf(t, h, BootOptions{Image: "guest", UUID: id, DomainXML: ownDomain})
	if vm.UUID != id || vm.State != "running" {
		t.Errorf("machine is %+v", vm)
	}
	out, err := exec.Command("virsh", "-c", testLab.Hosts[0].URI, "dumpxml", vm.Name).Output()
	must(t, err)
	var d libvirtxml.Domain
	must(t, xml.Unmarshal(out, &d))
	root := d.Devices.Disks[0]
	if root.IOTune == nil || root.IOTune.TotalIopsSec != 5000 || root.Source.Network.Name != "vms/"+id+"_disk" {
		t.Errorf("the placeholder became %+v", root)
	}
	if d.Metadata == nil || !strings.Contains(d.Metadata.XML, "kept") {
		t.Error("the caller's metadata is gone")
	}
}

func TestBootRefuses(t *testing.T) {
	h := open(t, 0)
	taken := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	bare := importBlank(t, h, "bare")
	unsnap(t, bare)
	was := stateNow(t)
	tests := []struct {
		name string
		vm   string
		o    BootOptions
		want error
	}{
		{"name taken", taken.Name, BootOptions{Image: "guest"}, domain.ErrExists},
		{"UUID taken", "other", BootOptions{Image: "guest", UUID: taken.UUID}, domain.ErrExists},
		{"UUID is none", "other", BootOptions{Image: "guest", UUID: "42"}, disk.ErrInvalid},
		{"no such image", "other", BootOptions{Image: "nothing"}, disk.ErrNotFound},
		{"no such pool", "other", BootOptions{Image: "nothing/guest"}, disk.ErrNotFound},
		{"no snapshot", "other", BootOptions{Image: "bare"}, disk.ErrNotFound},
		{"size below the image's", "other", BootOptions{Image: "guest", Size: 1 << 20}, disk.ErrInvalid},
		{"name with slash", "a/b", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name with at", "a@b", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name with colon", "a:b", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name with markup", "a<b", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name with dots", "a..b", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name with dash", "-a", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"name of 1 KiB", strings.Repeat("a", 1024), BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"no name", "", BootOptions{Image: "guest"}, disk.ErrInvalid},
		{"XML is none", "other", BootOptions{Image: "guest", DomainXML: "<domain"}, domain.ErrInvalid},
		{"XML for another", "other", BootOptions{Image: "guest", DomainXML: "<domain><name>x</name></domain>"}, domain.ErrInvalid},
		{"no such network", "other", BootOptions{Image: "guest", Networks: []string{"nothing"}}, nil},
		{"start fails", "other", BootOptions{Image: "guest", DomainXML: strings.Replace(ownDomain, "<devices>", "<devices><emulator>/bin/false</emulator>", 1)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Boot(t.Context(), tt.vm, tt.o)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			was.unchanged(t)
		})
	}
}

// An unprotected snapshot cannot be cloned on a cluster that still serves
// clients of before Mimic, which a new one does.
func TestBootUnprotected(t *testing.T) {
	h := open(t, 0)
	image := importBlank(t, h, "unprotected")
	unprotect(t, image)
	was := stateNow(t)
	_, err := h.Boot(t.Context(), "other", BootOptions{Image: "unprotected"})
	var e *Error
	if !errors.Is(err, disk.ErrNotProtected) || !errors.As(err, &e) || e.Next != "rbd snap protect images/unprotected@snap" {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
}

// Of many boots of one name at once exactly one succeeds, and nothing is left of
// the others.
func TestBootRace(t *testing.T) {
	h := open(t, 0)
	vm := name(t)
	var wg sync.WaitGroup
	errs := make([]error, 5)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = h.Boot(t.Context(), vm, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
		})
	}
	wg.Wait()
	t.Cleanup(func() { removeAnywhere(t, vm) })
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		}
	}
	disks, err := h.Disks(t.Context())
	must(t, err)
	if won != 1 || len(disks) != 1 {
		t.Errorf("%d boots won and %d disks are there: %v", won, len(disks), errs)
	}
}

func TestBootCancelled(t *testing.T) {
	was := stateNow(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := config(0)
	c.Observe = func(e Event) {
		if e.Kind == Done && e.Step == "define" {
			cancel()
		}
	}
	h, err := Open(ctx, c)
	must(t, err)
	_, err = h.Boot(ctx, name(t), BootOptions{Image: "guest", Memory: guestMemory})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	must(t, h.Close())
	was.unchanged(t)
}

func TestRemoveTwice(t *testing.T) {
	h := open(t, 0)
	_, _, err := h.SetSecret(t.Context())
	must(t, err)
	was := stateNow(t)
	vm := guest(t, h)
	if _, err := h.Remove(t.Context(), vm.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Remove(t.Context(), vm.Name); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("the second time the error is %v", err)
	}
	was.unchanged(t)
}

// A disk whose machine this host does not know is not touched: another host may
// have the machine.
func TestRemoveLeavesDiskOfUnknownMachine(t *testing.T) {
	h := open(t, 0)
	elsewhere := bootOf(t, open(t, 1), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	was := stateNow(t)
	if _, err := h.Remove(t.Context(), elsewhere.UUID); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
}

// A disk with a snapshot stops the removal before the machine is stopped.
func TestRemoveRefusesSnapshots(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	image := "vms/" + vm.UUID + "_disk"
	rbdCommand(t, "snap", "create", image+"@mine")
	was := stateNow(t)
	_, err := h.Remove(t.Context(), vm.Name)
	if !errors.Is(err, disk.ErrHasSnapshots) || !strings.Contains(err.Error(), image+"@mine") {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
	rbdCommand(t, "snap", "rm", image+"@mine")
}

// Each verb keeps to its kind of image.
func TestVerbsKeepToTheirKind(t *testing.T) {
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	other := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	v := volume(t, h)
	root := "vms/" + vm.UUID + "_disk"
	was := stateNow(t)
	attach := func(volume string) error {
		_, err := h.Attach(t.Context(), other.Name, volume, AttachOptions{})
		return err
	}
	for name, err := range map[string]error{
		"image rm of a snapshot":      h.RemoveImage(t.Context(), "guest@snap"),
		"image rm of a volume":        h.RemoveImage(t.Context(), "volumes/volume-"+v.ID),
		"image rm of a machine's":     h.RemoveImage(t.Context(), root),
		"volume rm of a machine's":    h.RemoveVolume(t.Context(), root),
		"disk rm of a volume":         h.RemoveDisk(t.Context(), "volumes/volume-"+v.ID),
		"attach of another machine's": attach(root),
		"attach of an image":          attach("images/guest"),
	} {
		if !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if err := h.RemoveDisk(t.Context(), vm.UUID); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), vm.Name) {
		t.Errorf("disk rm of a defined machine's: error is %v", err)
	}
	was.unchanged(t)
}

// Of imports of one ID at once one wins, and its image is whole.
func TestImportRace(t *testing.T) {
	h := open(t, 0)
	was := stateNow(t)
	errs := make([]error, 3)
	images := make([]disk.Image, len(errs))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { images[i], errs[i] = h.ImportImage(t.Context(), testLab.Guest, ImportOptions{ID: "race"}) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			if images[i].Snapshot != "snap" || !images[i].Protected {
				t.Errorf("image is %+v", images[i])
			}
		}
	}
	if won != 1 {
		t.Errorf("%d won: %v", won, errs)
	}
	must(t, h.RemoveImage(t.Context(), "race"))
	was.unchanged(t)
}

// A pool over its quota is an error and not a wait, and what an import made of
// the image can still be removed.
func TestImportOverQuota(t *testing.T) {
	h := open(t, 0)
	file := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(file)
	must(t, err)
	_, err = io.CopyN(f, rand.Reader, 256<<20)
	must(t, errors.Join(err, f.Close()))
	was := stateNow(t)
	quota(t, "images", "1048576")
	defer quota(t, "images", "0")
	// The cluster notices some seconds later.
	for ctx := waiting(t); ; {
		_, err = h.ImportImage(ctx, file, ImportOptions{})
		if err != nil {
			break
		}
		must(t, h.RemoveImage(ctx, "large"))
	}
	var e *Error
	if !errors.Is(err, disk.ErrNoSpace) || !errors.As(err, &e) || len(e.Left) > 0 {
		t.Errorf("error is %v", err)
	}
	quota(t, "images", "0")
	for ctx := waiting(t); ; { // and some seconds later again
		_, err := h.ImportImage(ctx, testLab.Guest, ImportOptions{ID: "roomy"})
		if err == nil {
			must(t, h.RemoveImage(ctx, "roomy"))
			break
		}
		if !errors.Is(err, disk.ErrNoSpace) {
			t.Fatal(err)
		}
	}
	was.unchanged(t)
}

// Stop asks the guest, start brings it back with its disks as they were.
func TestStopStart(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	stopped, err := h.Stop(t.Context(), vm.Name, false)
	if err != nil || stopped.State != "shut off" {
		t.Fatalf("state is %q, %v", stopped.State, err)
	}
	blocks, err := testLab.Blocks(t.Context(), "vms/"+vm.UUID+"_disk")
	must(t, err)
	if err := blocks.Check(c.acked(t, "vda")); err != nil {
		t.Error(err)
	}
	if _, err := h.Start(t.Context(), vm.Name); err != nil {
		t.Fatal(err)
	}
	c.writes(t, 0, "vda")
}

// A monitor's address that was good when the machine was defined is replaced at
// its start.
func TestStartRefreshesMonitors(t *testing.T) {
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	conn, giveBack, err := h.borrow(t.Context())
	must(t, err)
	defer giveBack()
	stale := []disk.Monitor{{Host: "127.0.0.9", Port: "1"}}
	must(t, domain.Redefine(t.Context(), conn, vm.UUID, func(xml string) (string, bool, error) {
		return domain.Rewrite(xml, stale, testLab.Conf, "")
	}))
	if _, err := h.Start(t.Context(), vm.Name); err != nil {
		t.Fatal(err)
	}
	consoleOf(vm.Name).writes(t, 0, "vda")
}

// importBlank is an image of zeros, whose machine never leaves its BIOS.
func importBlank(t testing.TB, h *Host, id string) disk.Name {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blank")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 8<<20))
	image, err := h.ImportImage(t.Context(), file, ImportOptions{ID: id})
	must(t, err)
	t.Cleanup(func() {
		if err := h.RemoveImage(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return image.Name()
}

func unprotect(t testing.TB, image disk.Name) {
	t.Helper()
	rbdCommand(t, "snap", "unprotect", image.String())
}

func unsnap(t testing.TB, image disk.Name) {
	t.Helper()
	unprotect(t, image)
	rbdCommand(t, "snap", "rm", image.String())
}

// rbdCommand does behind vmdisk's back what others could do.
func rbdCommand(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command("rbd", append([]string{"-c", testLab.Conf, "--id", "cinder"}, args...)...)
	cmd.Env = append(os.Environ(), "CEPH_ARGS=--log-file= --admin-socket=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
}
