// Faults on a lab that is up: TestLab runs these one after the other.

package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func osdComesBack(t *testing.T, l *Lab) {
	ctx := deadline(t)
	file := filepath.Join(t.TempDir(), "object")
	must(t, os.WriteFile(file, []byte("kept"), 0o600))
	_, err := l.client(ctx, nil, "rados", "cinder", "-p", "volumes", "put", "kept", file)
	must(t, err)
	osd := l.OSD(0)
	before := osd.PID()
	must(t, osd.Kill(ctx))
	if osd.Condition() != Dead || osd.PID() != 0 {
		t.Errorf("after Kill: %s, pid %d", osd.Condition(), osd.PID())
	}
	must(t, osd.Kill(ctx))
	must(t, osd.Start(ctx))
	if after := osd.PID(); after == 0 || after == before {
		t.Errorf("pid %d after Start, %d before", after, before)
	}
	must(t, os.Remove(file))
	_, err = l.client(ctx, nil, "rados", "cinder", "-p", "volumes", "get", "kept", file)
	must(t, err)
	if got, err := os.ReadFile(file); string(got) != "kept" {
		t.Errorf("the object came back as %q: %v", got, err)
	}
}

// An OSD that slept serves again at once.
func osdThaws(t *testing.T, l *Lab) {
	ctx := deadline(t)
	must(t, l.OSD(0).Freeze(ctx))
	stalled := exec.CommandContext(ctx, "rados", "-c", l.Conf, "--id", "cinder", "--log-file=", "--admin-socket=", "-p", "volumes", "put", "slow", "/etc/hostname")
	must(t, stalled.Start())
	must(t, l.OSD(0).Thaw(ctx))
	must(t, stalled.Wait())
	_, err := l.client(ctx, nil, "rados", "cinder", "-p", "volumes", "rm", "slow")
	must(t, err)
}

func monThaws(t *testing.T, l *Lab) {
	ctx := deadline(t)
	must(t, l.Mon().Freeze(ctx))
	s := l.Status(ctx)
	if s.Healthy() || s.Parts[0].State != Frozen || !strings.Contains(s.Health, "frozen") {
		t.Errorf("with the monitor frozen: %+v", s)
	}
	if err := l.Mon().Start(ctx); err == nil {
		t.Error("a frozen monitor was started")
	}
	must(t, l.Mon().Thaw(ctx))
	must(t, l.healthOK(ctx))
}

func guestOutlivesLibvirtd(t *testing.T, h *Host) {
	ctx := deadline(t)
	console, disk := testMachine(t, h, "survivor")
	qemu, err := h.QEMU("survivor")
	must(t, err)
	must(t, h.Libvirtd().Kill(ctx))
	if _, err := h.virsh(ctx, "list"); err == nil {
		t.Error("a dead libvirtd answers")
	}
	acked, err := console.Acked("vda")
	must(t, err)
	_, err = console.WaitAcked(ctx, "vda", acked)
	must(t, err)
	must(t, h.Libvirtd().Start(ctx))
	must(t, until(ctx, func() error {
		out, err := h.virsh(ctx, "domstate", "survivor")
		if state := strings.TrimSpace(string(out)); err == nil && state != "running" {
			return fmt.Errorf("the guest is %s", state)
		}
		return err
	}))

	must(t, qemu.Freeze(ctx))
	must(t, qemu.Thaw(ctx))
	if err := qemu.Start(ctx); err == nil {
		t.Error("a QEMU was started")
	}
	acked, err = console.Acked("vda")
	must(t, err)
	acked, err = console.WaitAcked(ctx, "vda", acked+20)
	must(t, err)
	must(t, qemu.Kill(ctx))
	nothingLost(t, disk, acked)
}

// nothingLost reads a qcow2 disk as the oracle does.
func nothingLost(t *testing.T, disk string, acked uint64) {
	t.Helper()
	raw := disk + ".raw"
	// A QEMU that was killed holds its lock on the file until the kernel is done with it.
	must(t, until(t.Context(), func() error {
		_, err := run(t.Context(), "qemu-img", "convert", "-O", "raw", disk, raw)
		return err
	}))
	f, err := os.Open(raw)
	must(t, err)
	defer f.Close()
	blocks, err := OracleBlocks(f, guestSize)
	must(t, err)
	must(t, blocks.Check(acked))
}

func agentFreezes(t *testing.T, h *Host) {
	ctx := deadline(t)
	testMachine(t, h, "frozen")
	var out []byte
	must(t, until(ctx, func() (err error) {
		out, err = h.virsh(ctx, "qemu-agent-command", "frozen", `{"execute":"guest-fsfreeze-freeze"}`)
		return err
	}))
	if !bytes.Contains(out, []byte(`{"return":1}`)) {
		t.Errorf("freeze: %s", out)
	}
	out, err := h.virsh(ctx, "qemu-agent-command", "frozen", `{"execute":"guest-fsfreeze-thaw"}`)
	if err != nil || !bytes.Contains(out, []byte(`{"return":1}`)) {
		t.Errorf("thaw: %s %v", out, err)
	}
	console := h.lab.Console(h, "frozen")
	_, err = h.virsh(ctx, "shutdown", "frozen", "--mode", "acpi")
	must(t, err)
	_, err = console.Wait(ctx, regexp.MustCompile(`oracle: poweroff`))
	must(t, err)
}

// hostLosesPower ends the machines that are on the host.
func hostLosesPower(t *testing.T, h *Host) {
	ctx := deadline(t)
	if ms, err := h.machines(); err != nil || len(ms) == 0 {
		t.Fatalf("machines on %s: %v, %v", h.Name, ms, err)
	}
	must(t, h.Whole().Kill(ctx))
	if ms, err := h.machines(); err != nil || len(ms) > 0 {
		t.Errorf("machines on a dead host: %v, %v", ms, err)
	}
	must(t, h.Whole().Start(ctx))
	out, err := h.virsh(ctx, "list", "--name")
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("machines after a power cut: %q, %v", out, err)
	}
}
