package vmdisk

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// What was lent stays open, and one libvirt connection is enough.
func TestNewLends(t *testing.T) {
	cluster, err := disk.Open(t.Context(), disk.Config{Conf: testLab.Conf})
	must(t, err)
	defer cluster.Close()
	conn, err := domain.Connect(t.Context(), testLab.Hosts[0].URI, 0)
	must(t, err)
	h := New(cluster, conn, Config{})
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	if _, err := h.VMs(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := h.Remove(t.Context(), vm.Name); err != nil {
		t.Error(err)
	}
	must(t, h.Close())
	if _, err := cluster.Monitors(t.Context()); err != nil {
		t.Errorf("the Ceph connection is closed: %v", err)
	}
	if left, err := conn.Close(); err != nil || left != 0 {
		t.Errorf("libvirt references left: %d, %v", left, err)
	}
}
