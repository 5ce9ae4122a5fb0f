package disk

import (
	"errors"
	osexec "os/exec"
	"testing"
)

// The manager hears of a pool some seconds after the monitor made it.
func TestCapacityOfNewPool(t *testing.T) {
	const name = "just-made"
	ceph := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", testLab.Conf, "--id", "admin", "--log-file=", "--admin-socket="}, args...)
		if out, err := osexec.Command("ceph", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	c := open(t)
	ceph("osd", "pool", "create", name, "1")
	all, err := c.Capacity(t.Context(), VMPool, name)
	if err != nil || len(all.Pools) != 2 || all.Pools[1].Available <= 0 {
		t.Errorf("capacity is %+v, %v", all, err)
	}
	ceph("osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
	if _, err := c.Capacity(t.Context(), name); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a pool that was removed: %v", err)
	}
}
