// Machines that run before their data is in Ceph.

package vmdisk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/migrate"
)

// origins serves the guest's disk as guest.raw and guest.qcow2.
func origins(t testing.TB) *web {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Symlink(testLab.Guest, filepath.Join(dir, "guest.raw")))
	out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", testLab.Guest, filepath.Join(dir, "guest.qcow2")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return serve(t, dir)
}

// contentOf is what librbd reads of a disk.
func contentOf(t testing.TB, image string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "content")
	if out, err := command("rbd", "--id", "cinder", "export", "--no-progress", image, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// holdsGuest makes sure that a disk has the guest's data, and zeros behind it.
func holdsGuest(t testing.TB, image string, size int) {
	t.Helper()
	want, err := os.ReadFile(testLab.Guest)
	must(t, err)
	got := contentOf(t, image)
	if len(got) != size || sha256.Sum256(got[:len(want)]) != sha256.Sum256(want) || len(bytes.Trim(got[len(want):], "\x00")) > 0 {
		t.Errorf("%s has %d bytes, want %d, or other data", image, len(got), size)
	}
}

// rootImage is a machine's root disk.
func rootImage(vm VM) string { return vm.Disks[0].Pool + "/" + vm.Disks[0].Image }

func TestBootFromOrigin(t *testing.T) {
	h, w := open(t, 0), origins(t)
	for _, from := range []string{filepath.Join(w.dir, "guest.raw"), filepath.Join(w.dir, "guest.qcow2"), w.url("guest.raw"), w.url("guest.qcow2") + "?version=1"} {
		t.Run(strings.Split(filepath.Base(from), "?")[0], func(t *testing.T) {
			const size = 101 << 20
			vm := bootOf(t, h, BootOptions{Image: from, Size: size, Memory: guestMemory, NoStart: true})
			if f := vm.Filling; f == nil || f.Origin.Where != from || f.Whole || f.Origin.Size != 64<<20 {
				t.Fatalf("it is %+v", vm)
			}
			holdsGuest(t, rootImage(vm), size) // through it
			s, err := h.Filling(t.Context(), vm.Name)
			must(t, err)
			if s.Filling == nil || s.By != nil {
				t.Errorf("status is %+v", s)
			}
			_, err = h.CreateImage(t.Context(), vm.Name, CreateImageOptions{})
			if !errors.Is(err, disk.ErrInUse) || !strings.Contains(nextOf(err), "vmdisk fill "+vm.Name) {
				t.Errorf("an image of it: %v", err)
			}
			done, err := h.Fill(t.Context(), vm.Name)
			if err != nil || done.Origin == nil || done.Origin.Where != from {
				t.Fatalf("%+v, %v", done, err)
			}
			if done, err = h.Fill(t.Context(), vm.Name); err != nil || done.Origin != nil {
				t.Errorf("again: %+v, %v", done, err)
			}
			holdsGuest(t, rootImage(vm), size)
			if vm, err = h.VM(t.Context(), vm.Name); err != nil || vm.Filling != nil {
				t.Errorf("it is %+v, %v", vm, err)
			}
		})
	}
	if rbd, err := command("rbd", "--id", "cinder", "ls", "vms").Output(); err != nil || len(rbd) > 0 {
		t.Errorf("left: %s, %v", rbd, err)
	}
}

func nextOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Next
	}
	return ""
}

// A guest whose boot loader cannot read on is paused, and boots on when the server is
// back; it writes while its disk is filled, and moves to another host.
func TestOriginGoesAwayUnderGuest(t *testing.T) {
	h, w := open(t, 0), origins(t)
	conn := connected(t, 0)
	vm := bootOf(t, h, BootOptions{Image: w.url("guest.qcow2"), Memory: guestMemory, NoStart: true})
	down := w.stopAfter(3 << 20)
	_, err := h.Start(t.Context(), vm.Name)
	must(t, err)
	<-down
	state := func(want string) {
		t.Helper()
		for ctx := waiting(t); ; {
			info, err := domain.Find(ctx, conn, vm.UUID)
			must(t, err)
			if strings.HasPrefix(info.State, want) {
				return
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				t.Fatalf("it is %s, not %s", info.State, want)
			}
		}
	}
	state("paused")
	_, err = h.Fill(t.Context(), vm.Name)
	if !errors.Is(err, disk.ErrOriginAway) || !strings.Contains(nextOf(err), "vmdisk fill "+vm.Name) {
		t.Errorf("filled from nowhere: %v", err)
	}
	if v, err := h.VM(t.Context(), vm.Name); err != nil || v.Filling == nil {
		t.Errorf("without the server it is %+v, %v", v, err)
	}
	w.start()
	out, err := command("virsh", "-c", testLab.Hosts[0].URI, "resume", vm.Name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	_, err = h.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{NoForecast: true})
	must(t, err)
	there := open(t, 1)
	_, err = there.Fill(t.Context(), vm.Name)
	must(t, err)
	w.stop()
	c.writes(t, 1, "vda")
	_, err = there.Stop(t.Context(), vm.Name, true)
	must(t, err)
	content := contentOf(t, rootImage(vm))
	blocks, err := lab.OracleBlocks(bytes.NewReader(content), int64(len(content)))
	must(t, err)
	if acked := c.acked(t, "vda"); blocks.Highest < acked || len(blocks.Torn) > 0 {
		t.Errorf("acknowledged up to %d, on the disk are up to %d; torn: %v", acked, blocks.Highest, blocks.Torn)
	}
	want, err := os.ReadFile(testLab.Guest)
	must(t, err)
	if !bytes.Equal(content[1<<20:8<<20], want[1<<20:8<<20]) {
		t.Error("the boot partition is another")
	}
}

// A file cannot be read on another host.
func TestOriginFileStays(t *testing.T) {
	h, w := open(t, 0), origins(t)
	file := filepath.Join(w.dir, "guest.qcow2")
	vm := bootOf(t, h, BootOptions{Image: file, Memory: guestMemory, NoStart: true})
	_, err := h.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{Offline: true})
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "only compute1 has") {
		t.Errorf("moved: %v", err)
	}
	was, err := os.Stat(file)
	must(t, err)
	must(t, os.Chtimes(file, time.Now(), was.ModTime().Add(time.Second)))
	for what, do := range map[string]func() error{
		"filled":  func() error { _, err := h.Fill(t.Context(), vm.Name); return err },
		"started": func() error { _, err := h.Start(t.Context(), vm.Name); return err },
	} {
		if err := do(); !errors.Is(err, disk.ErrOriginAway) || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%s from a file that is another: %v", what, err)
		}
	}
	must(t, os.Remove(file))
	if _, err := h.Start(t.Context(), vm.Name); !errors.Is(err, disk.ErrOriginAway) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("started without: %v", err)
	}
	d, err := h.Disk(t.Context(), vm.UUID)
	if err != nil || d.Size != 64<<20 {
		t.Errorf("it is %+v, %v", d, err)
	}
	_, err = h.Remove(t.Context(), vm.Name)
	must(t, err)
}

// Bad input is refused before anything is made.
func TestBootFromBadOrigin(t *testing.T) {
	h, w := open(t, 0), origins(t)
	was := stateNow(t)
	for from, want := range map[string]error{
		w.url("nothing.raw"):            disk.ErrNotFound,
		w.url(""):                       disk.ErrBadSource, // a list
		"ftp://127.0.0.1/guest.raw":     disk.ErrBadSource,
		"http://127.0.0.1:1/guest.raw":  disk.ErrOriginAway,
		filepath.Join(w.dir, "nothing"): os.ErrNotExist,
		"./":                            disk.ErrBadSource,
	} {
		if _, err := h.Boot(t.Context(), name(t), BootOptions{Image: from}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", from, err, want)
		}
	}
	_, err := h.Boot(t.Context(), name(t), BootOptions{Image: w.url("guest.raw"), Size: 1 << 20})
	if !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("too small: %v", err)
	}
	was.unchanged(t)
}

// slowly is a machine whose disk takes a while to be filled.
func slowly(t *testing.T, h *Host) (VM, *web) {
	w := origins(t)
	vm := bootOf(t, h, BootOptions{Image: w.url("guest.qcow2"), Memory: guestMemory, NoStart: true})
	w.slow(50 * time.Millisecond)
	return vm, w
}

// A filling that is ended, by whomever, is gone on with.
func TestFillEnded(t *testing.T) {
	var moving atomic.Bool
	cfg := config(0)
	cfg.Observe = func(e Event) { watchLeaks(e); moving.CompareAndSwap(false, e.Kind == Started && e.Step == "fill") }
	h, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	other := open(t, 0)
	vm, w := slowly(t, h)
	begun := func() {
		for ctx := waiting(t); !moving.Load(); {
			must(t, sleep(ctx, 10*time.Millisecond))
		}
	}
	fill := func(ctx context.Context) <-chan error {
		moving.Store(false)
		done := make(chan error, 1)
		go func() {
			_, err := h.Fill(ctx, vm.Name)
			done <- err
		}()
		begun()
		return done
	}
	if _, err := other.AbortFill(t.Context(), vm.Name); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("nothing aborted: %v", err)
	}
	done := fill(t.Context())
	if _, err := other.Remove(t.Context(), vm.Name); !errors.Is(err, disk.ErrInUse) || !strings.Contains(nextOf(err), "vmdisk fill --abort "+vm.Name) {
		t.Errorf("removed: %v", err)
	}
	_, err = other.Start(t.Context(), vm.Name) // side by side
	must(t, err)
	if r, err := other.Repair(t.Context(), RepairOptions{}); err != nil || r.Changed() || len(r.Machines) > 0 {
		t.Errorf("a repair of what is well: %+v, %v", r, err)
	}
	_, err = other.Stop(t.Context(), vm.Name, true)
	must(t, err)
	s, err := other.AbortFill(t.Context(), vm.Name)
	if err != nil || s.Filling == nil || s.By != nil {
		t.Errorf("aborted: %+v, %v", s, err)
	}
	if err := <-done; !errors.Is(err, migrate.ErrAborted) {
		t.Errorf("the filling that was aborted: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done = fill(ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the filling that was cancelled: %v", err)
	}
	w.slow(0)
	_, err = other.Fill(t.Context(), vm.Name)
	must(t, err)
	holdsGuest(t, rootImage(vm), 64<<20)
}

// One that was killed leaves nothing to repair, and is gone on with.
func TestFillKilled(t *testing.T) {
	forgetsSoon(t)
	h := open(t, 0)
	for i, p := range []point{{"fill", 1, before}, {"fill", 1, after}, {"part", 1, before}, {"part", 1, after}} {
		t.Run(p.String(), func(t *testing.T) {
			w := origins(t)
			vm := bootOf(t, h, BootOptions{Image: w.url([]string{"guest.raw", "guest.qcow2"}[i%2]), Memory: guestMemory, NoStart: true})
			must(t, dies(fillWorkflow.process(fixture{VM: vm.Name}, p)))
			_, err := h.Repair(t.Context(), RepairOptions{})
			must(t, err)
			if r, err := h.Repair(t.Context(), RepairOptions{}); err != nil || r.Changed() {
				t.Errorf("a repair has something to do: %+v, %v", r, err)
			}
			_, err = h.Fill(t.Context(), vm.Name)
			must(t, err)
			w.stop()
			holdsGuest(t, rootImage(vm), 64<<20)
		})
	}
	t.Run("in the middle", func(t *testing.T) {
		vm, w := slowly(t, h)
		cmd, err := fillWorkflow.process(fixture{VM: vm.Name}, point{})
		must(t, err)
		must(t, cmd.Start())
		for ctx := waiting(t); ; must(t, sleep(ctx, 20*time.Millisecond)) {
			s, err := h.Filling(t.Context(), vm.Name)
			must(t, err)
			if s.Filling != nil && s.Filling.Percent > 10 {
				break
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		w.slow(0)
		_, err = h.Fill(t.Context(), vm.Name)
		must(t, err)
		w.stop()
		holdsGuest(t, rootImage(vm), 64<<20)
	})
}

var fillWorkflow = workflow{name: "fill", run: func(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Fill(ctx, f.VM)
	return err
}}

// linking is a process that dies somewhere in the making of a disk.
type linking struct {
	Name, UUID, From string
	After            time.Duration
}

func (l linking) happen(t *testing.T) {
	cfg := config(0)
	cfg.Observe = func(e Event) {
		if e.Kind == Started && e.Step == "link" {
			time.AfterFunc(l.After, killSelf)
		}
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	_, err = h.Boot(t.Context(), l.Name, BootOptions{Image: l.From, UUID: l.UUID, Memory: guestMemory, NoStart: true})
	must(t, err)
	time.Sleep(l.After) // it was faster
	killSelf()
}

// A disk whose making was killed is gone after a repair, whatever there was of it.
func TestLinkKilledAtAnyMoment(t *testing.T) {
	forgetsSoon(t)
	h, w := open(t, 0), origins(t)
	was, objects := stateNow(t).named(), dataObjects(t)
	var all []linking
	for i := range 12 {
		all = append(all, linking{Name: fmt.Sprintf("%s-%d", name(t), i), UUID: uuid.NewString(), From: w.url("guest.qcow2"),
			After: time.Duration(i*i) * time.Millisecond})
	}
	atOnce(t, all, func(l linking) error { return dies(child("linking", l)) })
	w.stop()
	_, err := h.Repair(t.Context(), RepairOptions{})
	must(t, err)
	for _, l := range all {
		must(t, gone2(h.Remove(t.Context(), l.Name)))
	}
	if now := stateNow(t).named(); fmt.Sprint(now) != fmt.Sprint(was) {
		t.Errorf("it was\n%s\nand is\n%s", strings.Join(was, "\n"), strings.Join(now, "\n"))
	}
	if now := dataObjects(t); now != objects {
		t.Errorf("there were %d objects of data, and are %d", objects, now)
	}
}

// gone2 takes a machine that is not there for one that was removed.
func gone2(_ Removal, err error) error {
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}
