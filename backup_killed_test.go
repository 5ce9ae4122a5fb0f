package vmdisk

import (
	"bufio"
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// agentSays is what the guest's agent answers when asked whether it is frozen.
func agentSays(t *testing.T, vm string) string {
	t.Helper()
	conn, err := domain.Connect(t.Context(), testLab.Hosts[0].URI, 0)
	must(t, err)
	defer conn.Close()
	d, err := conn.LookupDomainByName(vm)
	must(t, err)
	defer d.Free()
	for {
		answer, err := d.QemuAgentCommand(`{"execute":"guest-fsfreeze-status"}`, 5, 0)
		if err == nil {
			return answer
		}
		if !errors.Is(err, libvirt.ERR_AGENT_UNRESPONSIVE) || waiting(t).Err() != nil { // it boots
			t.Fatal(err)
		}
	}
}

// A guest that was frozen for a backup whose process was killed is thawed by repair,
// also by one of that machine only.
func TestFrozenGuestIsThawed(t *testing.T) {
	h := open(t, 0)
	v, vm := backedUp(t, h), guest(t, h)
	consoleOf(vm.Name).writes(t, 0, "vda")
	_, err := h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	was := stateNow(t)
	for _, o := range []RepairOptions{{}, {VM: vm.Name}} {
		if got := agentSays(t, vm.Name); !strings.Contains(got, "thawed") {
			t.Fatalf("before: %s", got)
		}
		must(t, dies(workflow{name: "backup"}.process(fixture{Volume: v.ID, Backup: "frozen"}, point{"snapshot", 1, before})))
		if got := agentSays(t, vm.Name); !strings.Contains(got, `"frozen"`) {
			t.Fatalf("killed between freeze and thaw: %s", got)
		}
		r, err := h.Repair(t.Context(), o)
		must(t, err)
		if got := agentSays(t, vm.Name); !strings.Contains(got, "thawed") || len(r.Operations) != 1 {
			t.Errorf("repaired: %s, %+v", got, r.Operations)
		}
		was.unchanged(t)
	}
	// One that is thawed again is not looked for: its host may be gone by then.
	must(t, dies(workflow{name: "backup"}.process(fixture{Volume: v.ID, Backup: "frozen"}, point{"copy", 1, before})))
	r, err := h.Repair(t.Context(), RepairOptions{DryRun: true})
	must(t, err)
	if len(r.Operations) != 1 || len(r.Operations[0].Remedies) == 0 ||
		slices.ContainsFunc(r.Operations[0].Remedies, func(s string) bool { return strings.HasPrefix(s, string(actThaw)) }) {
		t.Errorf("to repair: %+v", r.Operations)
	}
	_, err = open(t, 1).Repair(t.Context(), RepairOptions{})
	must(t, err)
	was.unchanged(t)
	_, err = h.Remove(t.Context(), vm.UUID)
	must(t, err)
}

// killInCopy kills a command at a random moment of its copying.
func killInCopy(t *testing.T, vmdisk string, args ...string) {
	t.Helper()
	c := command(vmdisk, append([]string{"--progress", "json"}, args...)...)
	out, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), `"step":"copy"`) {
	}
	time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	must(t, c.Process.Kill())
	if err := c.Wait(); err == nil {
		t.Fatal("it was over before it was killed")
	}
}

// writeMuch writes what takes a while to copy.
func writeMuch(t *testing.T, n disk.Name, b byte) {
	t.Helper()
	p := bytes.Repeat([]byte{b}, 4<<20)
	onImage(t, n, func(img *rbd.Image) error {
		for i := range int64(24) {
			if _, err := img.WriteAt(p, i<<22); err != nil {
				return err
			}
		}
		return img.Flush()
	})
}

// A backup and a restore are killed at random in their copies. A repair makes that
// nothing: the chain goes on where it was, and the volume is as it was.
func TestKilledInCopy(t *testing.T) {
	h, ctx := open(t, 0), t.Context()
	v := backedUp(t, h)
	writeMuch(t, v.Name(), 'a')
	full := create(t, h, v.ID, BackupOptions{})
	want := content(t, source(full))
	writeMuch(t, v.Name(), 'b')
	was := stateNow(t)
	restored := backedUp(t, h)
	before := content(t, restored.Name())
	vmdisk := buildCommand(t)
	killInCopy(t, vmdisk, "backup", "create", v.ID, "--incremental", "--name", "killed")
	all, err := h.Backups(ctx, v.ID)
	must(t, err)
	if len(all) != 2 || all[1].State != disk.BackupIncomplete {
		t.Errorf("after kill -9: %+v", all)
	}
	_, err = h.Repair(ctx, RepairOptions{})
	must(t, err)
	killInCopy(t, vmdisk, "backup", "restore", full.ID, "--to", restored.ID)
	_, err = h.Repair(ctx, RepairOptions{})
	must(t, err)
	if got := content(t, restored.Name()); got != before {
		t.Errorf("the volume is %s, was %s", got, before)
	}
	must(t, h.RemoveVolume(ctx, restored.ID))
	was.unchanged(t)
	next := create(t, h, v.ID, BackupOptions{Kind: disk.BackupIncremental})
	if next.Kind != disk.BackupIncremental {
		t.Errorf("the next is %+v", next)
	}
	restores(t, h, full, want)
	restores(t, h, next, content(t, source(next)))
}

// Somebody takes a backup's process for dead while it copies. Both of its
// connections are fenced: it stops, leaves everything to whoever took over, and
// writes nothing more.
func TestFencedBackupStops(t *testing.T) {
	h, ctx := open(t, 0), t.Context()
	v := backedUp(t, h)
	create(t, h, v.ID, BackupOptions{ID: "fenced-base"})
	mess(t, v.Name(), 2)
	was := stateNow(t)
	copying, fenced := make(chan struct{}), make(chan struct{})
	c := config(0)
	var once sync.Once
	c.Observe = func(e Event) {
		if e.Kind == Progress {
			once.Do(func() { close(copying); <-fenced })
		}
	}
	other, err := Open(ctx, c)
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := other.CreateBackup(ctx, v.ID, BackupOptions{ID: "fenced", Kind: disk.BackupIncremental})
		done <- err
	}()
	select {
	case <-copying:
	case err := <-done:
		t.Fatalf("it did not copy: %v", err)
	}
	all, err := mustCluster(t, h).Operations(ctx, disk.VolumePool)
	must(t, err)
	if len(all) != 1 || len(all[0].Holder.Also) != 1 {
		t.Fatalf("the journal has %+v", all)
	}
	addrs := []string{all[0].Holder.Addr, all[0].Holder.Also[0]}
	t.Cleanup(func() {
		for _, addr := range addrs {
			fenceCommand(t, "rm", addr)
		}
	})
	// As TakeOver does, but the one that writes to the pool of backups first: librbd
	// may then never return from a write.
	must(t, mustCluster(t, h).Fence(ctx, addrs[1], disk.FenceTime))
	close(fenced)
	var e *Error
	if err := <-done; !errors.Is(err, disk.ErrFenced) || !errors.As(err, &e) || e.Step != "copy" || len(e.Left) > 0 {
		t.Errorf("error is %v", err)
	}
	must(t, mustCluster(t, h).Fence(ctx, addrs[0], disk.FenceTime))
	must(t, other.Close())
	r, err := h.Repair(ctx, RepairOptions{})
	if err != nil || len(r.Operations) != 1 || !r.Operations[0].Done {
		t.Errorf("repair: %+v, %v", r, err)
	}
	if diff := cmp.Diff(was, stateNow(t)); diff != "" {
		t.Errorf("after the repair (-before +after):\n%s", diff)
	}
	verified, err := h.VerifyBackups(ctx, v.ID)
	if err != nil || len(verified) != 1 {
		t.Errorf("verified: %+v, %v", verified, err)
	}
}

func fenceCommand(t *testing.T, op, addr string) {
	t.Helper()
	if out, err := command("ceph", "--id", "admin", "osd", "blocklist", op, addr).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
