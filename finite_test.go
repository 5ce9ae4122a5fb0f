package vmdisk

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
)

// What does not answer is a timeout, on a connection that worked before too, and all
// is well again when it answers.
func TestCallsEnd(t *testing.T) {
	cfg := config(0)
	cfg.Timeout = 3 * time.Second
	h, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	vm := guest(t, open(t, 0))
	_, err = h.VMs(t.Context()) // leaves a connection that works
	must(t, err)
	qemu, err := testLab.Hosts[0].QEMU(vm.Name)
	must(t, err)
	for _, tt := range []struct {
		name string
		part lab.Part
		work func() error
	}{
		{"libvirtd, listed", testLab.Hosts[0].Libvirtd(), func() error { _, err := h.VMs(t.Context()); return err }},
		{"libvirtd, started", testLab.Hosts[0].Libvirtd(), func() error { _, err := h.Start(t.Context(), vm.Name); return err }},
		{"QEMU, resized", qemu, func() error { _, err := h.Resize(t.Context(), vm.Name, 80<<20, false); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			must(t, tt.part.Freeze(t.Context()))
			thaw := func() { must(t, tt.part.Thaw(context.WithoutCancel(t.Context()))) }
			begin := time.Now()
			err := tt.work()
			took := time.Since(begin)
			thaw()
			if !errors.Is(err, domain.ErrTimeout) || took > 8*time.Second {
				t.Errorf("error is %v, after %v", err, took)
			}
			if _, err := h.VMs(t.Context()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// That a host does not answer is told from a question that does not reach it.
func TestAskTellsSilenceFromMistakes(t *testing.T) {
	for _, tt := range []struct {
		uri             string
		silent, refused bool
	}{
		{"qemu+tcp://127.0.1.3:1/system", true, true},
		{"qemu+tcp://no-such-host.invalid:1/system", false, false},
		{"qemu+unix:///system?socket=/nowhere", false, false},
	} {
		_, err := domain.Ask(t.Context(), tt.uri, "nothing", 3*time.Second)
		if !errors.Is(err, domain.ErrUnreachable) || errors.Is(err, domain.ErrSilent) != tt.silent || errors.Is(err, domain.ErrRefused) != tt.refused {
			t.Errorf("%s: %v", tt.uri, err)
		}
	}
	a, err := domain.Ask(t.Context(), testLab.Hosts[1].URI, "nothing", 3*time.Second)
	if err != nil || a.Host != "compute2" || a.Defined || a.Running {
		t.Errorf("answer is %+v, %v", a, err)
	}
}
