package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/vmdisk/vmdisk/domain"
)

// Machines that boot together run together; one that cannot be booted, and one whose
// boot fails half-way, leave nothing and hold nobody up.
func TestBootMany(t *testing.T) {
	h := open(t, 0)
	base := name(t)
	taken, err := h.Boot(t.Context(), base+"-1", BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	must(t, err)
	t.Cleanup(func() { removeAnywhere(t, taken.UUID) })
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprintf("%s-%d", base, i))
	}
	broken := errors.New("broken")
	var failed atomic.Bool
	h.fault = func(_, step string, when phase) error {
		if step == "start" && when == after && failed.CompareAndSwap(false, true) {
			return broken
		}
		return nil
	}
	vms, errs := h.BootMany(t.Context(), names, BootOptions{Image: "guest", Memory: guestMemory})
	h.fault = nil
	running, fell := 0, 0
	for i, vm := range vms {
		switch {
		case i == 1:
			if !errors.Is(errs[i], domain.ErrExists) {
				t.Errorf("%s: error is %v", names[i], errs[i])
			}
		case errors.Is(errs[i], broken):
			fell++
			if _, err := h.VM(t.Context(), names[i]); !errors.Is(err, domain.ErrNotFound) {
				t.Errorf("%s is left: %v", names[i], err)
			}
		case errs[i] != nil || vm.State != "running" || vm.Name != names[i]:
			t.Errorf("%s: %+v, %v", names[i], vm, errs[i])
		default:
			running++
			removeAnywhere(t, vm.UUID)
		}
	}
	if running != 2 || fell != 1 {
		t.Errorf("%d run, %d fell", running, fell)
	}
}

// A cancelled wave leaves nothing, whoever waits for whom.
func TestBootManyCancelled(t *testing.T) {
	h := open(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	h.fault = func(_, step string, when phase) error {
		if step == "start" && when == after {
			cancel()
		}
		return nil
	}
	names := []string{name(t) + "-1", name(t) + "-2", name(t) + "-3"}
	_, errs := h.BootMany(ctx, names, BootOptions{Image: "guest", Memory: guestMemory})
	h.fault = nil
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error is %v", names[i], err)
		}
		if _, err := h.VM(t.Context(), names[i]); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("%s is left: %v", names[i], err)
		}
	}
	disks, err := h.Disks(t.Context())
	must(t, err)
	for _, d := range disks {
		t.Errorf("%s is left", d.Image)
	}
}

// Disks that are made together are whole, or not there.
func TestCreateDisks(t *testing.T) {
	h := open(t, 0)
	disks, err := h.CreateDisks(t.Context(), 130, DiskOptions{Image: "guest", Size: 1 << 30})
	must(t, err)
	if len(disks) != 130 || disks[129].Size != 1<<30 || disks[0].Parent != "images/guest@snap" {
		t.Errorf("%d disks: %+v", len(disks), disks)
	}
	for _, d := range disks {
		must(t, h.RemoveDisk(t.Context(), d.Image))
	}
	broken := errors.New("broken")
	h.fault = func(_, step string, when phase) error {
		if step == "clone" && when == after {
			return broken
		}
		return nil
	}
	if disks, err = h.CreateDisks(t.Context(), 3, DiskOptions{Image: "guest"}); !errors.Is(err, broken) || len(disks) > 0 {
		t.Errorf("%v, error is %v", disks, err)
	}
	h.fault = nil
	if disks, err = h.Disks(t.Context()); err != nil || len(disks) > 0 {
		t.Errorf("%v are left, %v", disks, err)
	}
	if _, err := h.CreateDisks(t.Context(), 2, DiskOptions{Image: "guest", UUID: "0f8fad5b-d9cb-469f-a165-70867728950e"}); err == nil {
		t.Error("one UUID is enough for two disks")
	}
}
