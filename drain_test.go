package vmdisk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// A host is drained to two others: what is off and what writes little goes first, what
// cannot go does not keep the rest, and a drain that was interrupted is gone on with.
func TestDrainMigrates(t *testing.T) {
	var mu sync.Mutex
	var gone []string // in the order in which they went
	watching := func(progress func()) *Host {
		cfg := config(0)
		cfg.Observe = func(e Event) {
			watchLeaks(e)
			if e.Op == "drain" && e.Kind == Done && e.Step == "move" {
				mu.Lock()
				defer mu.Unlock()
				gone = append(gone, e.Object)
			}
			if e.Op == "migrate" && e.Kind == Progress {
				progress()
			}
		}
		h, err := Open(t.Context(), cfg)
		must(t, err)
		t.Cleanup(func() { must(t, h.Close()) })
		return h
	}
	h := watching(func() {})
	calm, busy := guest(t, h), guest(t, h)
	off := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	bound := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	eject := localCD(t, 0, bound)
	for _, vm := range []VM{calm, busy} {
		consoleOf(vm.Name).writes(t, 0, "vda")
	}
	must(t, testLab.Hosts[0].Dirty(t.Context(), busy.Name, 64<<20, 40<<20))
	o := DrainOptions{To: uris(1, 2), Workers: 1, Migrate: MigrateOptions{Policy: migrate.Policy{
		Bandwidth: 32 << 20, OnStall: migrate.StallPostcopy}}}

	t.Run("what would go where", func(t *testing.T) {
		was := stateNow(t)
		o := o
		o.DryRun = true
		all, err := h.Drain(t.Context(), o)
		must(t, err)
		was.unchanged(t)
		order := names(all)
		if !slices.Equal(order[2:], []string{calm.Name, busy.Name}) || !all[2].Forecast.Converges || all[3].Forecast.Converges {
			t.Errorf("they would go in the order %v: %+v", order, all)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		all, err := watching(cancel).Drain(ctx, o)
		if !errors.Is(err, context.Canceled) || len(all) != 4 || all[2].Moved() || all[3].Moved() {
			t.Errorf("%v: %+v", err, all)
		}
		for _, vm := range []VM{calm, busy} {
			consoleOf(vm.Name).writes(t, 0, "vda")
		}
	})
	t.Run("to its end", func(t *testing.T) {
		all, err := h.Drain(t.Context(), o)
		var stay *DrainError
		if !errors.As(err, &stay) || len(stay.Errs) != 1 || !errors.Is(err, migrate.ErrUnsafe) {
			t.Fatalf("error is %v: %+v", err, all)
		}
		var left []string
		for _, m := range all {
			if !m.Moved() {
				left = append(left, m.VM)
				continue
			}
			on := at(t, m.To)
			c, err := domain.Inspect(t.Context(), connected(t, on), m.UUID)
			if err != nil || c.Running == m.off() {
				t.Errorf("%s on %s is %+v, %v", m.VM, m.To, c, err)
			}
			if !m.off() {
				consoleOf(m.VM).writes(t, on, "vda")
			}
		}
		if !slices.Equal(left, []string{bound.Name}) {
			t.Errorf("what stays is %v", left)
		}
		want := []string{off.Name, calm.Name, busy.Name}
		if !slices.Equal(gone, want) {
			t.Errorf("they went in the order %v, not %v", gone, want)
		}
	})
	t.Run("what was left", func(t *testing.T) {
		eject()
		all, err := h.Drain(t.Context(), o)
		must(t, err)
		if !slices.Equal(names(all), []string{bound.Name}) || !all[0].Moved() {
			t.Errorf("%+v", all)
		}
		vms, err := h.VMs(t.Context())
		if err != nil || len(vms) > 0 {
			t.Errorf("on the host are still %+v, %v", vms, err)
		}
	})
}

// What a drain is asked for is looked at before anything moves.
func TestDrainRefused(t *testing.T) {
	h := open(t, 0)
	bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	was := stateNow(t)
	for _, tt := range []struct {
		name string
		to   []string
		want error
		says string
	}{
		{"nowhere", nil, disk.ErrInvalid, "no destination"},
		{"to itself", uris(1, 0), migrate.ErrSameHost, "host to be drained"},
		{"no host name", []string{"-x"}, domain.ErrInvalid, "-x"},
		{"nobody there", []string{"qemu+tcp://127.0.1.9:1/system"}, domain.ErrUnreachable, "127.0.1.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Drain(t.Context(), DrainOptions{To: tt.to})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v", err)
			}
		})
	}
	was.unchanged(t)
}

// A destination gets no more machines than it has memory for; what is off needs none.
func TestDepotFull(t *testing.T) {
	p := depot{hosts: []*place{{host: "a", free: 3}, {host: "b", free: 5}}}
	var to []string
	for _, memory := range []int64{2, 2, 2, 2} {
		one, err := p.take(memory, false, nil)
		if err != nil {
			if !errors.Is(err, migrate.ErrUnfit) || !strings.Contains(err.Error(), "a 1 B, b 1 B") {
				t.Errorf("error is %v", err)
			}
			continue
		}
		to = append(to, one.host)
	}
	if !slices.Equal(to, []string{"b", "a", "b"}) {
		t.Errorf("they went to %v", to)
	}
	if one, err := p.take(8, true, []string{"a"}); err != nil || one.host != "b" {
		t.Errorf("one that is off: %+v, %v", one, err)
	}
}

func names(all []Drained) (names []string) {
	for _, m := range all {
		names = append(names, m.VM)
	}
	return names
}

func uris(hosts ...int) (all []string) {
	for _, i := range hosts {
		all = append(all, testLab.Hosts[i].URI)
	}
	return all
}

// at is the index of a host.
func at(t *testing.T, host string) int {
	t.Helper()
	for i, h := range testLab.Hosts {
		if h.Name == host {
			return i
		}
	}
	t.Fatalf("no host %s", host)
	return 0
}

// localCD gives a machine that is off a CD of a file that only its host has, until
// eject.
func localCD(t *testing.T, host int, vm VM) (eject func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "local.iso")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o644))
	xml := "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='" + file + "'/><target dev='sda' bus='sata'/><readonly/></disk>"
	d, err := connected(t, host).LookupDomainByUUIDString(vm.UUID)
	must(t, err)
	t.Cleanup(func() { must(t, d.Free()) })
	must(t, d.AttachDeviceFlags(xml, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG))
	return func() {
		t.Helper()
		must(t, d.DetachDeviceFlags(xml, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG))
	}
}
