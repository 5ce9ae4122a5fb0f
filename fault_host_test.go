// Faults from outside around machines that are not on their way: secrets and keys that
// are gone or others, and processes that sleep.

package vmdisk

import (
	"bufio"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"github.com/vmdisk/vmdisk/secret"
)

// theSecret is the UUID of compute1's secret.
func theSecret(t *testing.T) string {
	t.Helper()
	all, err := secret.List(connected(t, 0))
	if err != nil || len(all) != 1 {
		t.Fatalf("secrets are %v, %v", all, err)
	}
	return all[0].UUID
}

// ephemeral makes a host's secret one that its libvirtd forgets, and has it do so.
func ephemeral(t *testing.T, h *Host, i int) {
	t.Helper()
	s, _, err := h.SetSecret(t.Context())
	must(t, err)
	virsh(t, i, "secret-undefine", s.UUID)
	file := filepath.Join(t.TempDir(), "secret.xml")
	must(t, os.WriteFile(file, []byte("<secret ephemeral='yes' private='yes'><uuid>"+s.UUID+
		"</uuid><usage type='ceph'><name>"+s.Usage+"</name></usage></secret>"), 0o600))
	virsh(t, i, "secret-define", file)
	_, _, err = h.SetSecret(t.Context())
	must(t, err)
	restarted(t, i)
}

// otherKey is a key that fits no lock.
func otherKey(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ceph-authtool", "--gen-print-key").Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// rotated gives client.cinder another key, in the cluster and in its keyring, until the
// test ends.
func rotated(t *testing.T) {
	t.Helper()
	file := filepath.Join(testLab.Dir, "ceph/ceph.client.cinder.keyring")
	was, err := os.ReadFile(file)
	must(t, err)
	var entity []byte
	withCeph(t, func(conn *rados.Conn) {
		entity, _, err = conn.MonCommand([]byte(`{"prefix":"auth export","entity":"client.cinder"}`))
		must(t, err)
	})
	put := func(entity, keyring []byte) {
		withCeph(t, func(conn *rados.Conn) {
			_, _, err := conn.MonCommandWithInputBuffer([]byte(`{"prefix":"auth import"}`), entity)
			must(t, err)
		})
		must(t, os.WriteFile(file, keyring, 0o600))
	}
	t.Cleanup(func() { put(entity, was) })
	key := regexp.MustCompile(`key = \S+`)
	other := []byte("key = " + otherKey(t))
	put(key.ReplaceAll(entity, other), key.ReplaceAll(was, other))
}

// doesNotStart proves that a machine needs its secret.
func doesNotStart(t *testing.T, vm VM) {
	t.Helper()
	out, err := exec.Command("virsh", "-q", "-c", testLab.Hosts[0].URI, "start", vm.UUID).CombinedOutput()
	if err == nil {
		t.Errorf("libvirt starts it: %s", out)
	}
}

func stopped(t *testing.T, h *Host, vm VM) {
	t.Helper()
	_, err := h.Stop(t.Context(), vm.UUID, true)
	must(t, err)
}

func starts(t *testing.T, h *Host, vm VM) {
	t.Helper()
	now, err := h.Start(t.Context(), vm.UUID)
	must(t, err)
	if now.State != "running" {
		t.Errorf("it is %s", now.State)
	}
}

func TestSecretFaults(t *testing.T) {
	h := open(t, 0)
	vm, v := guest(t, h), volume(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	attachAndDetach := func(t *testing.T) {
		attached(t, h, vm, v)
		c.writes(t, 0, "vdb")
		_, err := h.Detach(t.Context(), vm.Name, v.ID)
		must(t, err)
	}
	for _, tt := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"undefined under a running machine", func(t *testing.T) {
			virsh(t, 0, "secret-undefine", theSecret(t))
			c.writes(t, 0, "vda")
			attachAndDetach(t)
		}},
		{"forgotten by libvirtd", func(t *testing.T) {
			ephemeral(t, h, 0)
			attachAndDetach(t)
		}},
		{"forgotten by the destination", func(t *testing.T) {
			there := open(t, 1)
			ephemeral(t, there, 1)
			_, err := h.Migrate(t.Context(), vm.UUID, testLab.Hosts[1].URI, MigrateOptions{})
			must(t, err)
			c.writes(t, 1, "vda")
			_, err = there.Migrate(t.Context(), vm.UUID, testLab.Hosts[0].URI, MigrateOptions{})
			must(t, err)
			c.writes(t, 0, "vda")
		}},
		{"key changed under a running machine", func(t *testing.T) {
			rotated(t)
			c.writes(t, 0, "vda")
			h := open(t, 0)
			stopped(t, h, vm)
			starts(t, h, vm) // with the old key QEMU would wait for minutes
		}},
		{"key set back", func(t *testing.T) {
			h := open(t, 0)
			stopped(t, h, vm)
			starts(t, h, vm)
		}},
		{"missing", func(t *testing.T) {
			stopped(t, h, vm)
			virsh(t, 0, "secret-undefine", theSecret(t))
			doesNotStart(t, vm)
			starts(t, h, vm)
		}},
		{"wrong", func(t *testing.T) {
			stopped(t, h, vm)
			key, err := base64.StdEncoding.DecodeString(otherKey(t))
			must(t, err)
			s, err := connected(t, 0).LookupSecretByUUIDString(theSecret(t))
			must(t, err)
			must(t, s.SetValue(key, 0))
			must(t, s.Free())
			starts(t, h, vm)
		}},
		{"forgotten by libvirtd of a machine that is off", func(t *testing.T) {
			stopped(t, h, vm)
			ephemeral(t, h, 0)
			doesNotStart(t, vm)
			starts(t, h, vm)
		}},
	} {
		if !t.Run(tt.name, tt.run) {
			return
		}
	}
	virsh(t, 0, "secret-undefine", theSecret(t)) // the next one lasts
	_, _, err := h.SetSecret(t.Context())
	must(t, err)
}

// sleeper is a workflow in a process of its own, which says on standard output how far
// it is.
type sleeper struct {
	Do, VM, Dest string
	At           int
	OnStall      migrate.Stall
}

func (c sleeper) happen(t *testing.T) {
	say := func(what string) { _, _ = os.Stdout.WriteString("\n" + what + "\n") }
	h := impatient(t, c.At, hostSilence, func(e Event) {
		if e.Kind == Progress && e.Bytes > 0 {
			say("copying")
		}
	})
	var err error
	switch c.Do {
	case "migrate":
		_, err = h.Migrate(t.Context(), c.VM, c.Dest, MigrateOptions{Policy: migrate.Policy{OnStall: c.OnStall}})
	case "start, and sleep in it":
		h.fault = func(_, step string, when phase) error {
			if step == "start" && when == before {
				say("asleep")
				must(t, syscall.Kill(os.Getpid(), syscall.SIGSTOP))
				for begin := time.Now(); time.Since(begin) < time.Second; { // this thread may be the last to stop
					time.Sleep(10 * time.Millisecond)
				}
			}
			return nil
		}
		_, err = h.Start(t.Context(), c.VM)
	}
	if errors.Is(err, disk.ErrInUse) || errors.Is(err, disk.ErrFenced) {
		say("fenced")
	}
	t.Log(err)
}

// runs starts it and returns when it says something.
func (c sleeper) runs(t *testing.T, until string) (cmd *exec.Cmd, says *bufio.Scanner) {
	t.Helper()
	cmd, err := child("sleeper", c)
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	says = bufio.NewScanner(out)
	for says.Scan() {
		if says.Text() == until {
			return cmd, says
		}
	}
	t.Fatalf("the child does not come to %q: %v", until, says.Err())
	return nil, nil
}

// A process sleeps in the middle of a start for longer than it is waited for. What it
// began is taken back by another, and when it wakes up it does nothing more: libvirt,
// which knows of no fence, is not asked.
func TestStaleHolder(t *testing.T) {
	unfenced(t)
	forgetsSoon(t)
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	cmd, says := sleeper{Do: "start, and sleep in it", VM: vm.UUID}.runs(t, "asleep")
	_, err := h.Resize(t.Context(), vm.UUID, 80<<20, false) // waits until its watch is gone
	must(t, err)
	was := stateNow(t)
	must(t, cmd.Process.Signal(syscall.SIGCONT))
	fenced := false
	for says.Scan() {
		fenced = fenced || says.Text() == "fenced"
	}
	_ = cmd.Wait()
	if !fenced {
		t.Error("the stale one is not told")
	}
	c, err := domain.Inspect(t.Context(), connected(t, 0), vm.UUID)
	if err != nil || c.Running {
		t.Errorf("it is %+v, %v", c, err)
	}
	was.unchanged(t)
}
