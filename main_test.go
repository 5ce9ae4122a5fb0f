// The lab that the tests of this package run on, and what they look at.

package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/go-cmp/cmp"
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
	ctx := context.Background()
	l, done, err := lab.Borrow(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no lab:", err)
		return 1
	}
	defer func() { _ = done() }()
	testLab = l
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

// importGuest puts the guest into images/guest, once.
func importGuest(ctx context.Context) (err error) {
	h, err := Open(ctx, config(0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	_, err = h.ImportImage(ctx, testLab.Guest, ImportOptions{ID: "guest"})
	if errors.Is(err, disk.ErrExists) {
		return nil
	}
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

// open is a Host on one of the lab's two; a reference that it leaks fails the
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
	if _, err := c[host].WaitAcked(waiting(t), target, c.acked(t, target)); err != nil {
		t.Fatal(err)
	}
}

// state is everything that a workflow could leave: what rados and both libvirts
// hold, one line a thing.
type state []string

// stateNow reads it with other means than the library's.
func stateNow(t testing.TB) state {
	t.Helper()
	s := slices.Concat(rbdState(t), libvirtState(t))
	slices.Sort(s)
	return s
}

// forGood are objects that RBD makes when they are first needed and never removes.
var forGood = []string{"rbd_children", "rbd_directory", "rbd_info", "rbd_trash"}

// records are where vmdisk keeps what is under way and which machines there are.
var records = []string{"vmdisk.journal", "vmdisk.machines"}

// rbdState lists the rados objects but those that hold data: an image is its
// header, a snapshot or protection is in it, an owner or a lock has its own.
func rbdState(t testing.TB) state {
	t.Helper()
	var s state
	withCeph(t, func(conn *rados.Conn) {
		for _, pool := range []string{disk.ImagePool, disk.VMPool, disk.VolumePool, disk.BackupPool} {
			io, err := conn.OpenIOContext(pool)
			if err != nil {
				t.Fatal(err)
			}
			err = io.ListObjects(func(object string) {
				if !strings.HasPrefix(object, "rbd_data.") && !slices.Contains(forGood, object) && !slices.Contains(records, object) {
					s = append(s, "object "+pool+"/"+object)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range append([]string{"rbd_directory", "rbd_children", "rbd_trash", "vmdisk.backups"}, records...) {
				omap, err := io.GetAllOmapValues(object, "", "", 1000)
				if err != nil && !errors.Is(err, rados.ErrNotFound) {
					t.Fatal(err)
				}
				for key, value := range omap {
					if object == "rbd_trash" || slices.Contains(records, object) {
						value = nil // it has the time of deletion, or of the last change
					}
					s = append(s, fmt.Sprintf("omap %s/%s %q %q", pool, object, key, value))
				}
			}
			io.Destroy()
		}
	})
	return s
}

func withCeph(t testing.TB, f func(*rados.Conn)) {
	t.Helper()
	conn, err := rados.NewConnWithUser("admin")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.ReadConfigFile(testLab.Conf); err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"log_file", "admin_socket"} {
		if err := conn.SetConfigOption(option, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Connect(); err != nil {
		t.Fatal(err)
	}
	defer conn.Shutdown()
	f(conn)
}

func libvirtState(t testing.TB) state {
	t.Helper()
	var s state
	for _, host := range testLab.Hosts {
		conn, err := domain.Connect(t.Context(), host.URI, 0)
		if err != nil {
			t.Fatal(err)
		}
		vms, err := domain.List(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		for _, vm := range vms {
			text, err := json.Marshal(vm)
			if err != nil {
				t.Fatal(err)
			}
			targets, err := domain.Targets(t.Context(), conn, vm.UUID)
			if err != nil {
				t.Fatal(err)
			}
			s = append(s, fmt.Sprintf("domain %s %s %v", host.Name, text, targets))
		}
		secrets, err := secret.List(conn)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range secrets {
			s = append(s, fmt.Sprintf("secret %s %s", host.Name, one.UUID))
		}
		if left, err := conn.Close(); err != nil || left != 0 {
			t.Fatalf("libvirt references left: %d, %v", left, err)
		}
	}
	return s
}

// unchanged compares with the state before.
func (s state) unchanged(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(s, stateNow(t)); diff != "" {
		t.Errorf("state changed (-before +after):\n%s", diff)
	}
}

// rbdIDs is where a line has the ID that RBD gave to an image, and its length.
var rbdIDs = regexp.MustCompile(`(rbd_children |"id_|"name_[^"]*" |rbd_header\.|rbd_object_map\.).*`)

// same compares with the state before, but for the IDs of images.
func (s state) same(t testing.TB) {
	t.Helper()
	plain := func(s state) state {
		var all state
		for _, line := range s {
			all = append(all, rbdIDs.ReplaceAllString(line, "$1"))
		}
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(plain(s), plain(stateNow(t))); diff != "" {
		t.Errorf("state changed (-before +after):\n%s", diff)
	}
}

// forgetSecrets removes both hosts' secrets, so that workflows have to set them.
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
