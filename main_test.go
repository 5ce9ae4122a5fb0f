// The lab that the tests of this package run on, and what they look at.

package vmdisk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/secret"
)

// guestMemory is what the lab's guest is made for, in bytes.
const guestMemory = 128 << 20

var testLab *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain uses the lab in $VMDISK_LAB, which `make test` starts once for all
// packages, or one of its own. Whatever is missing for it is a failure.
func testMain(m *testing.M) int {
	if flag.Parse(); flag.Lookup("test.list").Value.String() != "" {
		defer listParts()
		return m.Run()
	}
	ctx := context.Background()
	l, done, err := lab.Borrow(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no lab:", err)
		return 1
	}
	defer func() { _ = done() }()
	testLab = l
	if os.Getenv(childVariable) != "" {
		return m.Run()
	}
	if err := importGuest(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "no guest image:", err)
		return 1
	}
	code := m.Run()
	if leaked.Load() {
		fmt.Fprintln(os.Stderr, errLeaked)
		code = 1
	}
	if err := leftovers(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "the tests left behind:", err)
		return 1
	}
	return code
}

// listParts adds to a list of tests the parts of one that is long, for each to run on
// a lab of its own (internal/labtest).
func listParts() {
	for _, p := range pairs {
		fmt.Println("TestInterrupted/" + p.do.name)
	}
	for _, c := range crossings {
		for victim := range victims {
			for _, at := range pivots {
				fmt.Println("TestCrossingKilled/" + killedCrossing(c.name, victim, at))
			}
		}
	}
}

// importGuest puts the guest into images/guest, once.
func importGuest(ctx context.Context) (err error) {
	h, err := Open(ctx, config(0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if _, err := h.Image(ctx, "guest"); !errors.Is(err, disk.ErrNotFound) {
		return err
	}
	_, err = h.ImportImage(ctx, testLab.Guest, ImportOptions{ID: "guest"})
	return err
}

func leftovers(ctx context.Context) error {
	for i := range testLab.Hosts {
		h, err := Open(ctx, config(i))
		if err != nil {
			return err
		}
		vms, err := h.VMs(ctx)
		disks, diskErr := h.Disks(ctx)
		volumes, volumeErr := h.Volumes(ctx)
		trash, trashErr := h.TrashedVolumes(ctx)
		backups, backupErr := h.Backups(ctx, "")
		if err := errors.Join(err, diskErr, volumeErr, trashErr, backupErr, h.Close()); err != nil {
			return err
		}
		if len(vms)+len(disks)+len(volumes)+len(trash)+len(backups) > 0 {
			return fmt.Errorf("machines %v, disks %v, volumes %v, in the trash %v, backups %v", vms, disks, volumes, trash, backups)
		}
	}
	return nil
}

func config(i int) Config {
	return Config{Ceph: disk.Config{Conf: testLab.Conf}, URI: testLab.Hosts[i].URI, Observe: watchLeaks}
}

var leaked atomic.Bool

// watchLeaks notices a libvirt reference that a workflow did not give back.
func watchLeaks(e Event) {
	if errors.Is(e.Err, errLeaked) {
		leaked.Store(true)
	}
}

// open is a Host on one of the lab's hosts; a reference that it leaks fails the
// test.
func open(t testing.TB, i int) *Host {
	t.Helper()
	h, err := Open(t.Context(), config(i))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// impatient is a Host that does not wait long for what does not answer.
func impatient(t *testing.T, i int, timeout time.Duration, observe func(Event)) *Host {
	t.Helper()
	cfg := config(i)
	cfg.Timeout = timeout
	if observe != nil {
		cfg.Observe = func(e Event) { watchLeaks(e); observe(e) }
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() }) // a call that never returned has its connection
	return h
}

// name is a machine's name that no other test has.
func name(t testing.TB) string {
	base := strings.ToLower(strings.NewReplacer("/", "-", " ", "-", "#", "").Replace(t.Name()))
	return base + "-" + uuid.NewString()[:8]
}

// guest is a machine on the lab's guest image that is removed from wherever it
// is when the test ends.
func guest(t testing.TB, h *Host) VM {
	t.Helper()
	return bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory})
}

func bootOf(t testing.TB, h *Host, o BootOptions) VM {
	t.Helper()
	vm, err := h.Boot(t.Context(), name(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAnywhere(t, vm.UUID) })
	return vm
}

func removeAnywhere(t testing.TB, vm string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for i := range testLab.Hosts {
		h, err := Open(ctx, config(i))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := h.VM(ctx, vm); err == nil {
			_, err = h.Remove(ctx, vm)
			if err != nil {
				t.Error(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

// volume is a volume of 1 GiB that is removed when the test ends.
func volume(t testing.TB, h *Host) disk.Volume {
	t.Helper()
	v, err := h.CreateVolume(t.Context(), "", disk.GiB)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := h.RemoveVolume(context.WithoutCancel(t.Context()), v.ID)
		if err != nil && !errors.Is(err, disk.ErrNotFound) {
			t.Error(err)
		}
	})
	return v
}

// waiting bounds what a test waits for a guest.
func waiting(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// console reads what a guest says, on every host that it was on.
type console []*lab.Console

func consoleOf(vm string) console {
	var c console
	for _, host := range testLab.Hosts {
		c = append(c, testLab.Console(host, vm))
	}
	return c
}

func (c console) acked(t testing.TB, target string) (top uint64) {
	t.Helper()
	for _, one := range c {
		n, err := one.Acked(target)
		if err != nil {
			t.Fatal(err)
		}
		top = max(top, n)
	}
	return top
}

// writes waits until the guest, on the host, has seen new writes acknowledged.
func (c console) writes(t testing.TB, host int, target string) {
	t.Helper()
	_, err := c[host].WaitAcked(waiting(t), target, c.acked(t, target))
	if errors.Is(err, lab.ErrCrashed) && c.moved() {
		t.Fatalf("the guest's kernel crashed after a live migration under TCG: QEMU loses dirty pages there, see ARCHITECTURE: %v", err)
	}
	must(t, err)
}

// moved says whether the guest was on more than one host.
func (c console) moved() bool {
	hosts := 0
	for _, one := range c {
		if all, err := one.All(); err == nil && all != "" {
			hosts++
		}
	}
	return hosts > 1
}

// forgetSecrets removes all hosts' secrets, so that workflows have to set them.
func forgetSecrets(t testing.TB) {
	t.Helper()
	for _, host := range testLab.Hosts {
		conn, err := domain.Connect(t.Context(), host.URI, 0)
		if err != nil {
			t.Fatal(err)
		}
		all, err := secret.List(conn)
		for _, one := range all {
			err = errors.Join(err, secret.Remove(conn, one.UUID))
		}
		if _, closeErr := conn.Close(); err != nil || closeErr != nil {
			t.Fatal(err, closeErr)
		}
	}
}
