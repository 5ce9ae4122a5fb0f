package vmdisk

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

func TestHotplug(t *testing.T) {
	h := open(t, 0)
	vm, v := guest(t, h), volume(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	was := stateNow(t)

	a, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	want := Attachment{VM: vm.Name, Target: "vdb", Pool: "volumes", Image: "volume-" + v.ID, Serial: v.ID}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	hears(t, c, `disk vdb come 1073741824 serial `+v.ID[:20])
	c.writes(t, 0, "vdb")

	d, err := h.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	hears(t, c, `disk vdb gone`)
	was.unchanged(t)
	blocks, err := testLab.Blocks(t.Context(), "volumes/volume-"+v.ID)
	must(t, err)
	if err := blocks.Check(c.acked(t, "vdb")); err != nil {
		t.Error(err)
	}
	c.writes(t, 0, "vda")
}

func hears(t *testing.T, c console, line string) {
	t.Helper()
	if _, err := c[0].Wait(waiting(t), regexp.MustCompile(`(?m)^`+line)); err != nil {
		t.Fatal(err)
	}
}

// A volume is in the definition too: it is there after a stop and a start.
func TestAttachStays(t *testing.T) {
	h := open(t, 0)
	vm, v := guest(t, h), volume(t, h)
	attached(t, h, vm, v)
	if _, err := h.Stop(t.Context(), vm.Name, true); err != nil {
		t.Fatal(err)
	}
	vm, err := h.Start(t.Context(), vm.Name)
	must(t, err)
	if len(vm.Disks) != 2 {
		t.Errorf("disks are %v", vm.Disks)
	}
	if _, err := h.Stop(t.Context(), vm.Name, true); err != nil {
		t.Fatal(err)
	}
	// Off, there is no guest to wait for.
	if _, err := h.Detach(t.Context(), vm.Name, "vdb"); err != nil {
		t.Fatal(err)
	}
}

func attached(t *testing.T, h *Host, vm VM, v disk.Volume) {
	t.Helper()
	if _, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAttachRefuses(t *testing.T) {
	h, other := open(t, 0), open(t, 1)
	vm, v, w := guest(t, h), volume(t, h), volume(t, h)
	elsewhere := bootOf(t, other, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	consoleOf(vm.Name).writes(t, 0, "vda")
	attached(t, h, vm, v)
	was := stateNow(t)
	tests := []struct {
		name   string
		on     *Host
		vm     string
		volume string
		target string
		want   error
		says   string
	}{
		{"attached already", h, vm.Name, v.ID, "", domain.ErrExists, "vdb"},
		{"attached on another host", other, elsewhere.Name, v.ID, "", disk.ErrInUse, vm.Name + " on compute1"},
		{"target taken", h, vm.Name, w.ID, "vdb", domain.ErrTargetInUse, "vdb"},
		{"target is the root's", h, vm.Name, w.ID, "vda", domain.ErrTargetInUse, "vda"},
		{"target is none", h, vm.Name, w.ID, "b", disk.ErrInvalid, ""},
		{"no such volume", h, vm.Name, "nothing", "", disk.ErrNotFound, "volumes/volume-nothing"},
		{"no such VM", h, "nothing", w.ID, "", domain.ErrNotFound, "nothing"},
		{"odd name", h, vm.Name, "a:b", "", disk.ErrInvalid, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.on.Attach(t.Context(), tt.vm, tt.volume, AttachOptions{Target: tt.target})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %v with %q", err, tt.want, tt.says)
			}
			was.unchanged(t)
		})
	}
	t.Run("remove attached", func(t *testing.T) {
		err := h.RemoveVolume(t.Context(), v.ID)
		if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), vm.Name) {
			t.Errorf("error is %v", err)
		}
		was.unchanged(t)
	})
	t.Run("detach the root", func(t *testing.T) {
		if _, err := h.Detach(t.Context(), vm.Name, "vda"); !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("error is %v", err)
		}
		was.unchanged(t)
	})
	t.Run("detach what is not there", func(t *testing.T) {
		if _, err := h.Detach(t.Context(), vm.Name, w.ID); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("error is %v", err)
		}
		was.unchanged(t)
	})
	_, err := h.Detach(t.Context(), vm.Name, v.ID)
	must(t, err)
}

// A shut-off machine owns its volume as well: it would open it at its start.
func TestAttachRefusesVolumeOfShutOffMachine(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	off := BootOptions{Image: "guest", Memory: guestMemory, NoStart: true}
	owner, other := bootOf(t, h, off), bootOf(t, h, off)
	attached(t, h, owner, v)
	if _, err := h.Attach(t.Context(), other.Name, v.ID, AttachOptions{}); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("error is %v", err)
	}
	_, err := h.Detach(t.Context(), owner.Name, v.ID)
	must(t, err)
}

// A guest in its BIOS ignores the unplug: pending, and nobody else gets the
// volume until the guest is gone.
func TestDetachPending(t *testing.T) {
	h := open(t, 0)
	blank := importBlank(t, h, "blank")
	vm := bootOf(t, h, BootOptions{Image: blank.Image, Memory: guestMemory})
	other := bootOf(t, open(t, 1), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	v := volume(t, h)
	attached(t, h, vm, v)

	c := config(0)
	c.Timeout = 2 * time.Second
	hasty, err := Open(t.Context(), c)
	must(t, err)
	defer func() { must(t, hasty.Close()) }()
	for range 2 { // the second try is no different
		_, err = hasty.Detach(t.Context(), vm.Name, v.ID)
		if !errors.Is(err, domain.ErrPending) {
			t.Fatalf("error is %v", err)
		}
	}
	if _, err := open(t, 1).Attach(t.Context(), other.Name, v.ID, AttachOptions{}); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("the pending volume was given away: %v", err)
	}
	if _, err := h.Stop(t.Context(), vm.Name, true); err != nil {
		t.Fatal(err)
	}
	// Now it converges.
	if _, err := h.Detach(t.Context(), vm.Name, v.ID); err != nil {
		t.Error(err)
	}
	must(t, h.RemoveVolume(t.Context(), v.ID))
}

// A machine that was undefined behind vmdisk's back does not keep its volume.
func TestDetachFromUndefined(t *testing.T) {
	h := open(t, 0)
	v := volume(t, h)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	attached(t, h, vm, v)
	conn, giveBack, err := h.borrow(t.Context())
	must(t, err)
	defer giveBack()
	must(t, domain.Undefine(t.Context(), conn, vm.UUID))
	if _, err := h.Detach(t.Context(), vm.Name, v.ID); err != nil {
		t.Error(err)
	}
	must(t, h.RemoveDisk(t.Context(), vm.UUID))
}

func TestResize(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	vm, err := h.Resize(t.Context(), vm.Name, 128<<20, false)
	must(t, err)
	if vm.Disks[0].Size != 128<<20 {
		t.Errorf("disk is %+v", vm.Disks[0])
	}
	hears(t, c, `disk vda grow 67108864 134217728`)
	vm, err = h.Resize(t.Context(), vm.Name, 64<<20, true)
	must(t, err)
	hears(t, c, `disk vda grow 134217728 201326592`)
	was := stateNow(t)
	if _, err := h.Resize(t.Context(), vm.Name, 64<<20, false); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("shrinking: %v", err)
	}
	was.unchanged(t)
	if _, err := h.Stop(t.Context(), vm.Name, true); err != nil {
		t.Fatal(err)
	}
	if vm, err = h.Resize(t.Context(), vm.Name, 64<<20, true); err != nil || vm.Disks[0].Size != 256<<20 {
		t.Errorf("off, disk is %+v, %v", vm.Disks, err)
	}
}
